"""The stage-by-stage table and the floor of a training step."""

import pytest

from resnet_jax import ResNet, create_model
from resnet_jax.models.analysis.summary import format_summary, summarize


def test_resnet50_stage_by_stage():
    summary = summarize(create_model("resnet50"))
    outputs = [(112, 112, 64), (56, 56, 256), (28, 28, 512), (14, 14, 1024), (7, 7, 2048), (1000,)]
    assert [row.output for row in summary.rows] == outputs
    assert [row.name for row in summary.rows] == [
        "stem",
        "stage1",
        "stage2",
        "stage3",
        "stage4",
        "head",
    ]
    # One 7x7 convolution and its BatchNorm; one matrix and its bias.
    assert summary.rows[0].params == 49 * 3 * 64 + 128
    assert summary.rows[-1].params == 2048 * 1000 + 1000
    assert summary.rows[0].macs == 112 * 112 * 49 * 3 * 64
    assert (summary.params, summary.macs) == (25_557_032, 4_089_184_256)
    assert summary.activations / 1e6 == pytest.approx(11.11, abs=0.005)


@pytest.mark.parametrize(
    ("name", "millions"),
    [
        ("resnet18", 2.48),
        ("resnext50_32x4d", 14.40),
        ("wide_resnet101_2", 21.22),
        ("resnet50d", 11.92),
    ],
)
def test_activations_are_the_published_convolution_outputs(name, millions):
    assert summarize(create_model(name)).activations / 1e6 == pytest.approx(millions, abs=0.006)


def test_kept_memory_counts_each_map_once():
    net = ResNet(
        stage_sizes=(1,), block="basic", width=4, stem_width=2, stem="small", num_classes=3
    )
    stem, stage, head = summarize(net, 8, channels=1).rows
    map_of_one = 8 * 8 * 4
    assert stem.kept_bytes == (1 + 2) * map_of_one  # the image and the first convolution's output
    # conv1 and the projection read the same two channels; each of the three BatchNorms and conv2
    # reads four.
    assert stage.kept_bytes == (2 + 4 * 4) * map_of_one
    assert head.kept_bytes == 4 * 4
    half = summarize(net.clone(dtype="bfloat16"), 8, channels=1)
    assert half.rows[1].kept_bytes == stage.kept_bytes / 2


def test_recomputed_blocks_and_stages_keep_their_inputs_only():
    net = ResNet(stage_sizes=(2, 1), block="basic", width=4, stem="small", num_classes=3)
    kept = {
        remat: [row.kept_bytes for row in summarize(net.clone(remat=remat), 8).rows]
        for remat in ("none", "block", "stage")
    }
    map_of_one = 8 * 8 * 4
    assert kept["block"] == [kept["none"][0], 2 * 4 * map_of_one, 4 * map_of_one, 4 * 8]
    assert kept["stage"] == [kept["none"][0], 4 * map_of_one, 4 * map_of_one, 4 * 8]


def test_floor_of_a_training_step_is_the_published_roofline():
    # 3 * 4.089 - 0.118 billion multiply-adds; traffic from the kernels' inputs and outputs, see
    # `training_floor`.
    floor = summarize(create_model("resnet50", dtype="bfloat16")).floor
    assert floor.flops / 1e9 == pytest.approx(24.3, rel=0.002)
    assert floor.unfused_bytes / 1e6 == pytest.approx(359, rel=0.01)
    assert floor.fused_bytes / 1e6 == pytest.approx(202, rel=0.01)
    small = summarize(create_model("resnet18")).floor
    assert small.flops / 1e9 == pytest.approx(10.6, rel=0.01)
    assert small.unfused_bytes / 1e6 == pytest.approx(80, rel=0.01)


def test_text_has_a_line_a_part_and_the_total():
    text = format_summary(summarize(create_model("cifar_resnet20"), 32), "a title")
    lines = text.splitlines()
    assert lines[0] == "a title"
    assert [line.split()[0] for line in lines[2:8]] == [
        "stem",
        "stage1",
        "stage2",
        "stage3",
        "head",
        "total",
    ]
    assert "269,722" in lines[7]
    assert "40.55" in lines[7]


@pytest.mark.parametrize("fields", [{"num_classes": 0}, {"num_classes": 0, "version": "v2"}])
def test_a_headless_net_ends_in_its_pooled_features(fields):
    assert summarize(create_model("cifar_resnet20", **fields), 32).rows[-1].output == (64,)
