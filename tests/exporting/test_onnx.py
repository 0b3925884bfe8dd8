"""An ONNX file answers as the network does, for every kind of layer."""

import jax
import numpy as np
import pytest
from exported import code_of_card, random_network, run_alone
from PIL import Image

import resnet_jax
from resnet_jax import UserError
from resnet_jax.exporting.export import export
from resnet_jax.exporting.network import Settings

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

NETS = {
    "basic": {"block": "basic", "shortcut": "A", "num_classes": 0},
    "v1": {"version": "v1", "groups": 2, "width_per_group": 32, "shortcut": "A_pool"},
    "v2": {"block": "basic", "version": "v2", "stem": "deep", "shortcut": "D", "conv_bias": True},
    "gates": {"block": "basic", "stem": "tiered", "stem_width": 16, "stem_pool": "conv"}
    | {"se_ratio": 0.25, "shortcut": "C", "shortcut_size": 3, "reduce_first": 2},
    "blur": {"block": "basic", "anti_alias": "blur", "eca": True},
    "average": {"block": "basic", "anti_alias": "average", "output_stride": 4, "shortcut": "D"},
    "plain": {"block": "basic", "residual": False, "norm": "none", "stem": "small"},
    "bit": {"version": "v2", "norm": "group", "norm_channel_groups": 4, "standardize": True}
    | {"stem_pool": "max_zeros"},
}


@pytest.mark.parametrize("net", NETS)
def test_every_layer_computes_the_same(net, tmp_path, capsys):
    # `export` raises where the largest difference is above 1e-4 of the largest logit.
    settings = Settings("onnx", fold=net in ("v2", "gates", "blur"), raw=net == "v1", opset=13)
    export(random_network(**NETS[net]), settings, tmp_path / "new")
    assert "largest difference from the network" in capsys.readouterr().out
    assert "ONNX, opset 13" in (tmp_path / "new" / "README.md").read_text()


def test_the_lines_of_the_card_name_the_class_of_a_picture(tmp_path):
    network = random_network(block="basic", channels=1)
    export(network, Settings("onnx"), tmp_path)
    draw = np.random.default_rng(3)
    Image.fromarray(draw.integers(0, 256, (60, 80), np.uint8)).save(tmp_path / "image.png")
    said = run_alone(code_of_card(tmp_path), tmp_path)
    images = resnet_jax.preprocess(tmp_path / "image.png", network.description)
    logits = jax.jit(network.model.apply)(network.variables, images)
    assert said.strip() == network.description.classes[logits.argmax()]


@pytest.mark.parametrize("opset", [0, 12, 99])
def test_an_opset_that_is_too_old_or_unknown_is_refused(opset, tmp_path):
    network = random_network(block="basic")
    with pytest.raises(UserError, match=rf"--opset={opset}: must be 13 to"):
        export(network, Settings("onnx", opset=opset), tmp_path / "new")
    assert not list(tmp_path.iterdir())
