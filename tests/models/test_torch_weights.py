"""torchvision's and timm's weights in and out: the same keys, the same logits, and clear
refusals.
"""

import argparse
import json
import re
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from running import slow_where

from resnet_jax import UserError, create_model, load_torch, save_torch
from resnet_jax.models import ResNet
from resnet_jax.models.interop.torch_files import read_weights, write_weights

sys.path.insert(0, str(Path(__file__).parent))
from golden_weights import CLASSES, SIZES, SMALL_SIZE, digest, fill, images

GOLDENS = json.loads(Path(__file__).with_name("goldens.json").read_text())
TINY = {"stage_sizes": (1, 2), "block": "basic", "width": 8, "num_classes": 3}


def zeros(model, channels=3):
    size = model.smallest_image()
    x = jax.ShapeDtypeStruct((1, size, size, channels), jnp.float32)
    shapes = jax.eval_shape(lambda x: model.init(jax.random.key(0), x, train=False), x)
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


# Of a kind that the suite has a smaller one of.
LARGE = {"resnet34", "resnet101", "wide_resnet50_2", "resnext50_32x4d", "resnet50s", "resnet50_gn"}
LARGE |= {"resnext50d_32x4d", "senet154", "ecaresnet50d", "ecaresnetlight", "resnetaa50"}
LARGE |= {"seresnetaa50d", "resnetblur50"}
# Whose files are of 0.5 GB and more.
HUGE = {"resnext101_32x32d", "resnext101_32x16d", "resnetv2_152x2_bit", "wide_resnet101_2"}


def saved_shapes(model, path):
    save_torch(zeros(model), path)
    with path.open("rb") as file:
        header = file.read(int.from_bytes(file.read(8), "little"))
    return {
        key: entry["shape"] for key, entry in json.loads(header).items() if key != "__metadata__"
    }


def randomised(model, seed=0):
    draw = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: draw.standard_normal(leaf.shape).astype(np.float32), zeros(model)
    )


@pytest.fixture
def file(tmp_path):
    return tmp_path / "weights.safetensors"


def equal(one, other):
    assert jax.tree.structure(one) == jax.tree.structure(other)
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", slow_where(HUGE.__contains__, GOLDENS["keys"]))
def test_keys_and_shapes_are_those_of_the_pytorch_network(name, file):
    assert digest(saved_shapes(create_model(name), file)) == GOLDENS["keys"][name]


def test_resnet18_key_by_key(file):
    assert saved_shapes(create_model("resnet18"), file) == GOLDENS["resnet18"]


@pytest.mark.parametrize("name", slow_where(LARGE.__contains__, GOLDENS["logits"]))
def test_logits_are_those_of_the_pytorch_network(name, file):
    model = create_model(name, num_classes=CLASSES)
    write_weights(fill(saved_shapes(model, file)), file)
    variables = load_torch(model, file)
    for size, expected in zip(SIZES, GOLDENS["logits"][name], strict=True):
        logits = jax.jit(model.apply)(variables, images(size))[0]
        np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.parametrize("name", slow_where(LARGE.__contains__, GOLDENS["small logits"]))
def test_logits_of_small_images_are_those_of_the_pytorch_network(name, file):
    options = {**GOLDENS["small logits"][name]}
    expected = options.pop("logits")
    # As a loop, which compiles sooner; tests/models/test_scan.py holds it to the blocks one by one.
    model = create_model(name, num_classes=CLASSES, scan_blocks=True, **options)
    write_weights(fill(saved_shapes(model, file)), file)
    logits = jax.jit(model.apply)(load_torch(model, file), images(SMALL_SIZE))[0]
    np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"eca": True, "block": "bottleneck", "reduce_first": 2, "shortcut_size": 3},
        {"version": "v2", "stem": "deep", "shortcut": "D"},
        {
            "se_ratio": 0.25,
            "stem": "deep",
            "stem_pool": "conv",
            "shortcut": "D",
            "block": "bottleneck",
        },
        {"norm": "none", "conv_bias": True, "version": "v2"},
        {"norm": "group", "norm_channel_groups": 4, "shortcut": "C", "num_classes": 0},
    ],
)
def test_variables_round_trip_bit_for_bit(fields, file):
    model = ResNet(**{**TINY, **fields})
    variables = randomised(model)
    save_torch(variables, file)
    equal(load_torch(model, file), variables)


def test_a_pth_file_round_trips_and_its_wrappers_are_taken_off(tmp_path):
    torch = pytest.importorskip("torch")
    model, path = ResNet(**TINY), tmp_path / "weights.pth"
    variables = randomised(model)
    save_torch(variables, path)
    equal(load_torch(model, path), variables)
    state = torch.load(path, weights_only=True)
    average = {f"module.{key}": value for key, value in state.items()} | {
        "n_averaged": torch.tensor(3)
    }
    other = {key: value * 2 for key, value in state.items()}
    for wrapped in (
        {"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 3},
        {"model": state, "optimizer": {"state": {}}},
        {"model": other, "model_ema": average},
        {f"_orig_mod.module.{key}": value for key, value in state.items()},
    ):
        torch.save(wrapped, path)
        equal(load_torch(model, path), variables)


def torch_state(torch, variables, path):
    save_torch(variables, path)
    return torch.load(path, weights_only=True)


@pytest.mark.parametrize("name", ["last.pth.tar", "last.ckpt", "pytorch_model.bin", "weights"])
def test_a_file_is_read_for_its_content_and_not_its_suffix(tmp_path, name):
    torch = pytest.importorskip("torch")
    model, variables = ResNet(**TINY), randomised(ResNet(**TINY))
    state = torch_state(torch, variables, tmp_path / "weights.pth")
    torch.save({"epoch": 1, "state_dict": state}, tmp_path / name)
    equal(load_torch(model, tmp_path / name), variables)


def test_safetensors_under_another_suffix_load_without_pytorch(tmp_path):
    variables = randomised(ResNet(**TINY))
    save_torch(variables, tmp_path / "weights.safetensors")
    (tmp_path / "weights.safetensors").rename(tmp_path / "weights.pth")
    equal(load_torch(ResNet(**TINY), tmp_path / "weights.pth"), variables)


def test_settings_scores_and_optimizer_states_beside_the_weights_do_no_harm(tmp_path):
    torch = pytest.importorskip("torch")
    model, variables, path = ResNet(**TINY), randomised(ResNet(**TINY)), tmp_path / "last.pth"
    state = torch_state(torch, variables, path)
    args = argparse.Namespace(lr=0.1, output=Path("runs"), best=np.float64(3), seeds=np.arange(3))
    momentum = {0: {"momentum_buffer": torch.zeros(3)}}
    for around in (
        {"model": state, "optimizer": {"state": momentum, "param_groups": []}, "args": args},
        {"model_state_dict": state, "optimizer_state_dict": {"state": momentum}, "loss": 0.3},
        {"network": state, "loss": torch.tensor(0.3), "rng": np.zeros(4, np.uint8)},
        {"model": state, "model_ema": {}},
        {"model": state, "model_ema": None},
    ):
        torch.save(around, path)
        equal(load_torch(model, path), variables)


def test_numpy_values_under_their_module_s_old_name_are_read(tmp_path):
    torch = pytest.importorskip("torch")
    model, variables, path = ResNet(**TINY), randomised(ResNet(**TINY)), tmp_path / "last.pth"
    state = torch_state(torch, variables, path)
    # PyTorch's older format is a pickle without a container, whose text can be edited.
    torch.save(
        {"model": state, "metric": np.float32(3), "all": np.arange(3)},
        path,
        _use_new_zipfile_serialization=False,
    )
    written = path.read_bytes()
    assert b"cnumpy._core.multiarray" in written
    path.write_bytes(written.replace(b"cnumpy._core.multiarray", b"cnumpy.core.multiarray"))
    equal(load_torch(model, path), variables)


def test_a_prefix_is_named_in_the_refusal_and_taken_off_on_request(file):
    model, variables = ResNet(**TINY), randomised(ResNet(**TINY))
    save_torch(variables, file)
    state = read_weights(file)
    trunk = {key: value for key, value in state.items() if not key.startswith("fc.")}
    moco = {f"module.encoder_{which}.{key}": v for which in "qk" for key, v in trunk.items()}
    moco |= {"module.queue": np.zeros((4, 4), np.float32)}
    with pytest.raises(
        UserError, match=r"'module\.encoder_q\.'.* beside .*module\.queue"
    ) as caught:
        load_torch(model, moco, num_classes=3)
    assert "give prefix='module.encoder_q.'" in str(caught.value)
    loaded = load_torch(model, moco, num_classes=3, prefix="module.encoder_q.")
    loaded["params"].pop("fc")
    expected = {**variables, "params": {**variables["params"]}}
    expected["params"].pop("fc")
    equal(loaded, expected)
    with pytest.raises(UserError, match=r"no key starts with prefix='backbone\.'.* module"):
        load_torch(model, moco, prefix="backbone.")


def test_of_two_networks_in_a_file_one_has_to_be_chosen(file):
    model, variables = ResNet(**TINY), randomised(ResNet(**TINY))
    save_torch(variables, file)
    both = {"teacher": {"x.weight": np.ones(3)}, "student": read_weights(file)}
    with pytest.raises(UserError, match=r"2 networks \(student, teacher\).*prefix="):
        load_torch(model, both)
    equal(load_torch(model, both, prefix="student"), variables)


def test_a_classifier_without_a_bias_is_kept_when_its_size_is_asked_for(file):
    model, variables = ResNet(**TINY), randomised(ResNet(**TINY))
    save_torch(variables, file)
    state = read_weights(file)
    state.pop("fc.bias")
    with pytest.raises(UserError, match=r"fc\.bias"):
        load_torch(model, state)
    loaded = load_torch(model, state, num_classes=3)["params"]["fc"]
    np.testing.assert_array_equal(loaded["kernel"], variables["params"]["fc"]["kernel"])
    np.testing.assert_array_equal(loaded["bias"], np.zeros(3))


def transformers_name(key):
    """torchvision's name of an array as transformers' ResNetForImageClassification has it."""
    module, _, leaf = key.rpartition(".")
    if module in ("conv1", "bn1"):
        kind = "convolution" if module == "conv1" else "normalization"
        return f"resnet.embedder.embedder.{kind}.{leaf}"
    if module == "fc":
        return f"classifier.1.{leaf}"
    stage, block, kind, number = re.fullmatch(
        r"layer(\d)\.(\d+)\.(conv|bn|downsample\.)(\d)", module
    ).groups()
    where = "shortcut" if kind == "downsample." else f"layer.{int(number) - 1}"
    is_conv = kind == "conv" or (kind == "downsample." and number == "0")
    what = "convolution" if is_conv else "normalization"
    return f"resnet.encoder.stages.{int(stage) - 1}.layers.{block}.{where}.{what}.{leaf}"


@pytest.mark.parametrize("block", ["basic", "bottleneck"])
def test_the_names_of_transformers_are_understood(file, block):
    model = ResNet(**{**TINY, "block": block})
    variables = randomised(model)
    save_torch(variables, file)
    state = {transformers_name(key): value for key, value in read_weights(file).items()}
    equal(load_torch(model, state), variables)


def test_a_name_with_a_tag_is_answered_with_the_network_and_the_way_to_its_weights():
    with pytest.raises(UserError, match=r"create_model\('resnet50'\).*'timm/resnet50\.a1_in1k'"):
        create_model("resnet50.a1_in1k")


def test_a_pickle_that_wants_to_run_code_is_refused_and_not_run(tmp_path):
    torch = pytest.importorskip("torch")

    class Bomb:
        def __reduce__(self):
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"state_dict": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(UserError, match=r"bomb\.pth: .*was not run"):
        load_torch(ResNet(**TINY), tmp_path / "bomb.pth")
    assert not (tmp_path / "ran").exists()


def test_a_head_of_another_size_is_replaced_on_request_only(file):
    variables = randomised(ResNet(**TINY))
    save_torch(variables, file)
    seven = ResNet(**{**TINY, "num_classes": 7})
    with pytest.raises(UserError, match=r"num_classes=.*\n.*\n *fc\.bias +\(7,\) +\(3,\)"):
        load_torch(seven, file)
    loaded = load_torch(seven, file, num_classes=7)
    kernel = loaded["params"]["fc"].pop("kernel")
    assert kernel.shape == (16, 7)
    assert 0 < np.abs(kernel).max() <= 0.25
    np.testing.assert_array_equal(loaded["params"].pop("fc")["bias"], np.zeros(7))
    variables["params"].pop("fc")
    equal(loaded, variables)
    headless = load_torch(seven.clone(num_classes=0), file, num_classes=0)
    equal(headless, variables)


def test_a_name_and_a_head_of_the_asked_size_load_as_they_are(file):
    variables = randomised(create_model("cifar_resnet20", num_classes=5))
    save_torch(variables, file)
    equal(load_torch("cifar_resnet20", file, num_classes=5), variables)
    with pytest.raises(UserError, match="num_classes = 4"):
        load_torch(create_model("cifar_resnet20"), file, num_classes=4)


@pytest.mark.parametrize("channels", [1, 4])
def test_the_first_kernel_adapts_to_other_channels(file, channels):
    model = ResNet(**TINY)
    save_torch(randomised(model), file)
    rgb, adapted = load_torch(model, file), load_torch(model, file, in_channels=channels)
    before, after = (np.asarray(tree["params"]["conv1"]["kernel"]) for tree in (rgb, adapted))
    expected = before.sum(2, keepdims=True) if channels == 1 else before[:, :, [0, 1, 2, 0]] * 3 / 4
    np.testing.assert_allclose(after, expected, atol=1e-6)


def test_half_precision_files_load_into_float32(file):
    model = ResNet(**TINY)
    save_torch(jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.bfloat16), randomised(model)), file)
    loaded = load_torch(model, file)
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {jnp.dtype("float32")}
    expected = jax.tree.map(
        lambda leaf: np.asarray(jnp.asarray(leaf, jnp.bfloat16), np.float32), randomised(model)
    )
    equal(loaded, expected)


def test_safetensors_reads_what_we_write_and_we_what_it_writes(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    state = {"a.weight": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.zeros((), np.int64)}
    write_weights(state, tmp_path / "ours.safetensors")
    numpy.save_file(state, tmp_path / "theirs.safetensors")
    equal(numpy.load_file(tmp_path / "ours.safetensors"), state)
    equal(read_weights(tmp_path / "theirs.safetensors"), state)


def test_arrays_of_another_network_are_reported_as_a_table_with_expected_and_found(file):
    save_torch(randomised(ResNet(**{**TINY, "width": 4})), file)
    with pytest.raises(UserError) as caught:
        load_torch(ResNet(**TINY), file)
    first, *table = str(caught.value).splitlines()
    assert str(file) in first
    rows = [re.split(r"  +", row) for row in table]
    assert rows[0] == ["key", "expected", "found"]
    assert ["conv1.weight", "(8, 3, 7, 7)", "(4, 3, 7, 7)"] in rows


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", "no such file"),
        ("empty", "is empty"),
        ("truncated", "not a whole"),
        ("foreign", "not a whole .safetensors file|was not run"),
    ],
)
def test_a_bad_file_is_named(tmp_path, suffix, damage, message):
    if suffix == ".pth":
        pytest.importorskip("torch")
    path = tmp_path / f"weights{suffix}"
    if damage == "empty":
        path.touch()
    elif damage == "foreign":
        path.write_bytes(
            b"\x89PNG not weights at all, but long enough to hold a header of some kind"
        )
    elif damage == "truncated":
        save_torch(randomised(ResNet(**TINY)), path)
        path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(UserError, match=message) as caught:
        load_torch(ResNet(**TINY), path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_failed_save_leaves_nothing_behind(tmp_path, suffix):
    if suffix == ".pth":
        pytest.importorskip("torch")
    with pytest.raises(UserError, match="cannot be written"):
        save_torch(randomised(ResNet(**TINY)), tmp_path / "absent" / f"weights{suffix}")
    with pytest.raises(UserError, match="unknown kind"):
        save_torch(randomised(ResNet(**TINY)), tmp_path / "weights.npz")
    assert list(tmp_path.iterdir()) == []
