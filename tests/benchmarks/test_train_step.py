"""The contest of training steps, in its small form on the CPU; no speed is asserted."""

import importlib.util
import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import harness, step_profile, train_step
from benchmarks.peers import stock_flax
from benchmarks.step_profile import Kernel
from resnet_jax.errors import UserError
from resnet_jax.models import ResNet
from resnet_jax.models.analysis.summary import summarize

HAS_TORCH = importlib.util.find_spec("torch") is not None
PROGRAM = """HloModule jit_step, is_scheduled=true

%region_0.1 (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  ROOT %add.9 = f32[] add(%a, %b)
}

%fused_statistics (p0: bf16[8,4,4,16]) -> f32[16] {
  ROOT %sum = f32[16]{0} reduce(%wide, %zero), dimensions={0,1,2}, to_apply=%region_0.1
}

%fused_relu (p1: bf16[8,4,4,16]) -> bf16[8,4,4,16] {
  ROOT %max = bf16[8,4,4,16]{3,2,1,0} maximum(%p1, %p1)
}

%triton_gemm (p2: bf16[128,16], p3: bf16[16,32]) -> bf16[128,32] {
  ROOT %dot.1 = bf16[128,32]{1,0} dot(%p2, %p3), lhs_contracting_dims={1}
}

ENTRY %main.3 (x: bf16[8,4,4,16]) -> f32[16] {
  %cudnn-conv.2 = (bf16[8]{0}, u8[0]{0}) custom-call(%x), custom_call_target="__cudnn$convForward"
  %input_reduce_fusion.4 = f32[16]{0} fusion(%x), calls=%fused_statistics, op_name="jvp(ResNet)/bn1"
  %loop_maximum_fusion = bf16[8]{0} fusion(%x), calls=%fused_relu, op_name="jit(step)/jvp(ResNet)/"
  %gemm_fusion_dot.7 = bf16[128,32]{1,0} fusion(%x, %x), kind=kCustom, calls=%triton_gemm
  %copy.5 = bf16[32,16]{0,1} copy(%x), metadata={op_name="jit(step)/transpose(jvp(ResNet))/fc"}
  ROOT %loop_multiply_fusion.3 = f32[16]{0} fusion(%x), calls=%fused_relu, op_name="jit(step)/mul"
}
"""


def test_the_small_form_reports_every_contestant_and_every_failure(tmp_path, monkeypatch, capsys):
    broken = {"broken": ("ours", {"no_such": 1})}
    monkeypatch.setattr(train_step, "CONTESTANTS", train_step.CONTESTANTS | broken)
    names = ("ours", "broken", "stock Flax", *(["PyTorch"] if HAS_TORCH else []))
    matches = [(train_step.Problem(name, 256), names) for name in ("quickstart", "resnet50")]
    monkeypatch.setitem(train_step.MATCHES, "gpu", matches)
    command = ["--small", "--rounds=2", "--seconds=0.1", "--networks=quickstart"]
    train_step.main([*command, f"--output={tmp_path}"])
    result = json.loads((tmp_path / "gpu_training.json").read_text())
    (match,) = result["matches"]
    assert [sorted(each) for each in match["rounds"]] == 2 * [sorted({*names} - {"broken"})]
    assert "no_such" in match["errors"]["broken"]
    assert match["last"]["ours"]["profile"]["categories"][step_profile.CONVOLUTIONS] > 0
    rows = {row["contestant"]: row for row in result["tables"]["Training steps"]}
    assert rows["ours"]["of the bound"].endswith("%")
    assert rows["stock Flax"]["ours / it"][1] > 0
    assert "no_such" in capsys.readouterr().out


def test_a_match_that_would_not_end_in_time_is_left_out(monkeypatch, capsys):
    played = []
    monkeypatch.setattr(train_step, "play", lambda *fields: played.append(fields))
    train_step.main(["--small", "--minutes=0"])
    assert played == []
    assert "left out, as the time is nearly up: ours, CUDA graphs" in capsys.readouterr().out


def test_a_gpu_is_held_against_its_data_sheet_and_its_time_is_told_apart():
    problem = train_step.Problem("resnet50", 256)._replace(**train_step.GPU)
    limit = train_step.bound(problem, "NVIDIA H200")
    assert limit == pytest.approx(13_380, rel=0.01)
    assert train_step.bound(problem, "no known GPU") is None
    profile = {"categories": {"convolutions": 0.5}, "kernels": [["c.1", "convolutions", 0.5]]}
    profile["span"] = 1.0
    match = {"problem": problem._asdict(), "contestants": ["ours"], "rounds": [{"ours": 0.04}]}
    match |= {"ready": {"ours": {"first_step": 9.0}}, "errors": {}, "bound": limit}
    tables = train_step.tables([match | {"last": {"ours": {"peak": 2**31, "profile": profile}}}])
    (row,), parts, longest = tables.values()
    assert (row["of the bound"], row["memory (GiB)"], row["images/s"].median) == ("48%", 2.0, 6400)
    assert parts[0] == {"kind": "convolutions", "ms a step": 500}
    assert longest[0]["instruction"] == "c.1"


def test_a_kernel_is_classified_by_its_instruction_or_else_by_its_name():
    program = step_profile.read_program(PROGRAM)
    kinds = {
        step_profile.CONVOLUTIONS: ["cudnn-conv.2", "gemm_fusion_dot.7", "sm90_xmma_wgrad_gemm"],
        step_profile.REDUCTIONS: ["input_reduce_fusion.4", "input_reduce_fusion_4"],
        step_profile.ELEMENTWISE: ["loop_maximum_fusion"],
        step_profile.COPIES: ["copy.5", "MemcpyD2D"],
        step_profile.REST: ["loop_multiply_fusion.3"],
        step_profile.UNKNOWN: ["mystery"],
    }
    for category, names in kinds.items():
        for name in names:
            assert step_profile.classify(Kernel(name, "", 0, 1), program) == category
            if name in program:
                assert step_profile.classify(Kernel("kernel", name, 0, 1), program) == category


@pytest.mark.parametrize("name", ["resnet18", "fashion_mnist_best"])
def test_stock_flax_has_the_parameters_of_our_network(name):
    images = jnp.zeros((2, 28, 28, 1))
    model = stock_flax.make_model(name, 10)
    variables = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    count = sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(variables["params"]))
    assert count == summarize(harness.network(name, num_classes=10), 28, 1).params


@pytest.mark.parametrize(
    "fields",
    [
        {"stage_sizes": (1, 2), "block": "basic"},
        {"stage_sizes": (1, 1), "stem": "small", "stem_pool": "max", "stem_width": 4},
        {"stage_sizes": (1, 1), "version": "v1", "conv_bias": True},
    ],
    ids=str,
)
def test_the_peer_in_pytorch_gives_our_logits(fields):
    torch = pytest.importorskip("torch")
    from benchmarks.peers import pytorch

    model = ResNet(**fields, width=8, num_classes=5)
    rng = np.random.default_rng(1)
    images = rng.standard_normal((2, 20, 17, 3), np.float32)
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    # No leaf at its trivial initial value.
    variables = jax.tree.map(lambda leaf: rng.uniform(0.1, 0.4, leaf.shape).astype("f"), shapes)
    expected = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, images)
    with torch.inference_mode():
        peer = pytorch.Network(model, variables).eval()
        found = peer(torch.tensor(images).permute(0, 3, 1, 2)).numpy()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found / scale, expected / scale, atol=1e-4)
    assert np.ptp(expected) > 1e-2 * scale
    for field in ({"version": "v2"}, {"se_ratio": 0.25}, {"stem": "deep"}):
        with pytest.raises(UserError, match=next(iter(field))):
            pytorch.Network(model.clone(**field), variables)
