"""A directory for PyTorch: read back bit for bit, and loaded by torchvision's and timm's classes."""

import dataclasses
import json

import jax
import numpy as np
import pytest
from exported import random_network

from resnet_jax import ResNet, UserError, create_model, load_pretrained
from resnet_jax.exporting.formats import FORMATS
from resnet_jax.exporting.network import Settings
from resnet_jax.models.interop import stablehlo
from resnet_jax.models.interop.timm_config import IMAGE_FIELDS
from resnet_jax.models.interop.torch_code import torchvision_lines
from resnet_jax.models.zoo import function_of

SETTINGS = Settings("torch")
# Of torchvision's blocks, but no network of its own.
CHANGED = {
    "small": {"block": "basic", "stem": "small", "version": "v1"},
    # Where a stem is small, other defaults follow.
    "pooled": {"block": "basic", "stem": "small", "stem_pool": "max", "stem_width": 64},
    "groups": {"stage_sizes": (1, 2, 1, 1), "groups": 2, "width_per_group": 32},
    "deep": {"stem": "deep", "stem_pool": "conv", "stem_width": 16, "block": "basic"},
}


def written(directory, network):
    """Writes a network for PyTorch, and returns what `load_pretrained` then reads."""
    FORMATS["torch"].check(network)
    FORMATS["torch"].write(directory, network, SETTINGS)
    return load_pretrained(str(directory), size="test")


def assert_same(read, network):
    model, variables, about = read
    jax.tree.map(np.testing.assert_array_equal, variables, network.variables)
    assert about.classes == network.description.classes
    for name in set(IMAGE_FIELDS) - {"crop"}:
        assert getattr(about, name) == getattr(network.description, name)
    sides = [round(one.eval_size / one.crop) for one in (about, network.description)]
    assert sides[0] == sides[1]
    return model


@pytest.mark.parametrize(("name", "channels"), [("resnet18", 1), ("resnet18_v2", 3)])
def test_a_network_of_timm_s_gets_timm_s_configuration_and_comes_back(name, channels, tmp_path):
    network = random_network(size=40, channels=channels, model=create_model(name, num_classes=3))
    about = dataclasses.replace(
        network.description, eval_size=48, crop_mode="squash", licence="mit"
    )
    network = network._replace(description=about)
    read = written(tmp_path, network)
    assert assert_same(read, network) == network.model
    assert read[2].licence == "mit"
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["architecture"] == {"resnet18_v2": "resnetv2_18"}.get(name, name)
    assert config["pretrained_cfg"]["input_size"] == [channels, 40, 40]
    assert config["pretrained_cfg"]["test_input_size"] == [channels, 48, 48]


@pytest.mark.parametrize("name", CHANGED)
def test_a_network_that_timm_lacks_comes_back(name, tmp_path):
    network = random_network(**CHANGED[name])
    model = assert_same(written(tmp_path, network), network)
    assert function_of(model) == function_of(network.model)
    assert "architecture" not in json.loads((tmp_path / "config.json").read_text())


@pytest.mark.parametrize("name", CHANGED)
def test_torchvision_s_parts_make_it_and_give_the_same_logits(name, tmp_path):
    pytest.importorskip("torchvision")
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    network = random_network(**CHANGED[name])
    written(tmp_path, network)
    scope = {}
    exec(torchvision_lines(network.model, 3), scope)
    weights = safetensors.load_file(tmp_path / "model.safetensors")
    scope["net"].eval().load_state_dict(weights, strict=True)
    check_logits(lambda x: scope["net"](torch.from_numpy(x)).detach().numpy(), network)


@pytest.mark.parametrize("name", ["resnet18", "resnet18_v2", "seresnet18"])
def test_timm_loads_the_directory_and_gives_the_same_logits(name, tmp_path):
    timm = pytest.importorskip("timm")
    torch = pytest.importorskip("torch")
    network = random_network(size=64, model=create_model(name, num_classes=3))
    written(tmp_path, network)
    net = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert net.num_classes == 3
    given = timm.data.resolve_model_data_config(net)
    assert given["input_size"] == (3, 64, 64)
    assert tuple(given["mean"]) == network.description.mean
    check_logits(lambda x: net(torch.from_numpy(x)).detach().numpy(), network)


def check_logits(answer, network):
    size, about = network.description.eval_size, network.description
    pixels = np.random.default_rng(4).integers(0, 256, (2, size, size, 3), np.uint8)
    images = stablehlo.normalise(pixels, np.float32(about.mean), np.float32(about.std))
    expected = np.asarray(jax.jit(network.model.apply)(network.variables, images))
    found = answer(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


def test_a_network_that_pytorch_s_libraries_lack_is_refused_with_what_is_odd():
    network = random_network(block="basic", stem="small", shortcut="A")
    with pytest.raises(
        UserError, match=r"neither timm nor torchvision has .*shortcut 'A'"
    ) as caught:
        FORMATS["torch"].check(network)
    assert "\n" not in str(caught.value)


def test_choices_that_a_format_lacks_are_refused():
    for given in ({"form": "torch", "fold": True}, {"form": "torch", "raw": True}):
        with pytest.raises(UserError, match="is not for --format=torch"):
            Settings(**given)
    with pytest.raises(UserError, match="--opset is for --format=onnx"):
        Settings("stablehlo", opset=17)


def test_no_network_of_the_table_is_taken_for_another():
    from resnet_jax.models.interop.timm_config import public_variant
    from resnet_jax.models.variants import VARIANTS

    public = [row for row in VARIANTS.values() if row.counts.startswith(("timm", "torchvision"))]
    assert all(public_variant(ResNet(**row.fields)) is row for row in public)
    assert public_variant(create_model("cifar_resnet20")) is None
    assert public_variant(create_model("resnet50", norm_epsilon=1e-3)) is None
