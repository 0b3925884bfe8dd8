"""The distance to a teacher, against PyTorch's numbers (distillation_golden.json)."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax.training.distillation import Distillation
from resnet_jax.training.loss import softmax_cross_entropy

GOLDEN = json.loads(Path(__file__).with_name("distillation_golden.json").read_text())


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda golden: f"T={golden['temperature']:g}")
def test_the_loss_and_its_gradient_are_those_of_pytorch(golden):
    with jax.enable_x64(True):
        teacher = Distillation(None, golden["temperature"], golden["weight"])
        taught = jnp.asarray(golden["taught"])
        targets = jax.nn.one_hot(jnp.asarray(golden["labels"]), taught.shape[-1])

        def loss(logits):
            return teacher.mix(softmax_cross_entropy(logits, targets), logits, taught).mean()

        value, gradient = jax.value_and_grad(loss)(jnp.asarray(golden["logits"]))
    assert float(value) == pytest.approx(golden["loss"], rel=1e-12)
    np.testing.assert_allclose(gradient, golden["gradient"], rtol=1e-10, atol=1e-14)
