"""A StableHLO file answers as the network does, where this package and flax are not."""

import re

import jax
import numpy as np
import pytest
from exported import code_of_card, random_network, run_alone
from PIL import Image

import resnet_jax
from resnet_jax.exporting.export import export
from resnet_jax.exporting.network import Settings
from resnet_jax.models.interop import stablehlo

SPLIT = """
import jax, numpy as np
from jax import export
from jax.sharding import AxisType, NamedSharding, PartitionSpec

program = export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
mesh = jax.make_mesh((8,), ("batch",), axis_types=(AxisType.Auto,))
batch = NamedSharding(mesh, PartitionSpec("batch"))
split = jax.jit(program.call)(jax.device_put(np.load("pixels.npy"), batch))
assert split.sharding.is_equivalent_to(batch, split.ndim)
np.save("answers.npy", split)
assert not {"flax", "resnet_jax"} & {name for name, module in sys.modules.items() if module}
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    pytest.importorskip("flatbuffers")
    directory = tmp_path_factory.mktemp("exported") / "new"
    network = random_network(block="basic")
    export(network, Settings("stablehlo"), directory)
    return network, directory


def test_the_batch_may_be_split_over_devices_and_of_any_size(exported, tmp_path):
    (model, variables, about), directory = exported
    pixels = np.random.default_rng(2).integers(0, 256, (40, 21, 21, 3), np.uint8)
    np.save(directory / "pixels.npy", pixels)
    run_alone(SPLIT, directory, XLA_FLAGS="--xla_force_host_platform_device_count=8")
    images = stablehlo.normalise(pixels, np.float32(about.mean), np.float32(about.std))
    logits = jax.jit(model.apply)(variables, images)
    found = np.log(np.maximum(np.load(directory / "answers.npy"), 1e-30))
    expected = np.maximum(jax.nn.log_softmax(logits), np.log(1e-30))
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(logits).max()


def test_the_lines_of_the_card_name_the_class_of_a_picture(exported):
    (model, variables, about), directory = exported
    draw = np.random.default_rng(3)
    Image.fromarray(draw.integers(0, 256, (60, 80, 3), np.uint8)).save(directory / "image.png")
    said = run_alone(code_of_card(directory), directory)
    images = resnet_jax.preprocess(directory / "image.png", about)
    logits = jax.jit(model.apply)(variables, images)
    assert said.strip() == about.classes[logits.argmax()]


def test_the_program_has_no_call_that_another_jax_may_lack(exported):
    _, directory = exported
    data = bytearray((directory / "model.stablehlo").read_bytes())
    program = jax.export.deserialize(data)
    calls = set(re.findall(r"custom_call @(\w+)", program.mlir_module()))
    assert calls <= {"shape_assertion"}  # which `jax.export` guarantees
    assert program.platforms == stablehlo.PLATFORMS
