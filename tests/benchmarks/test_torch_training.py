"""The peer in PyTorch is the same network, trained by the same rules."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from resnet_jax import config as recipe
from resnet_jax.distributed.mesh import shard_batch
from resnet_jax.errors import UserError
from resnet_jax.experiment import assemble
from resnet_jax.models import ResNet
from resnet_jax.models.interop.torch_weights import save_torch

torch = pytest.importorskip("torch")

from benchmarks import torch_resnet, torch_training  # noqa: E402

NETWORKS = {
    "imagenet stem": {"stage_sizes": (1, 2), "block": "basic"},
    "small stem and pool": {
        "stage_sizes": (1, 1),
        "block": "basic",
        "stem": "small",
        "stem_pool": "max",
        "stem_width": 4,
    },
    "biased bottleneck v1": {
        "stage_sizes": (1, 1),
        "version": "v1",
        "stem": "small",
        "conv_bias": True,
    },
    "bottleneck v1.5": {"stage_sizes": (2, 1), "stem": "small"},
}


def drawn(model, images, seed=0):
    """Variables of which none is at its trivial initial value."""
    shapes = jax.eval_shape(lambda: model.init(jax.random.key(0), images, train=False))
    draws = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(draws.uniform(0.1, 0.4, leaf.shape), leaf.dtype), shapes
    )


@pytest.mark.parametrize("fields", NETWORKS.values(), ids=NETWORKS)
def test_the_peer_gives_our_logits_with_our_parameters(fields):
    model = ResNet(**fields, width=8, num_classes=5)
    images = np.random.default_rng(1).normal(size=(2, 20, 17, 3)).astype(np.float32)
    variables = drawn(model, images)
    network = torch_resnet.Network(model, 3)
    torch_resnet.load(network, variables)
    expected = jax.jit(lambda v, x: model.apply(v, x, train=False))(variables, images)
    with torch.inference_mode():
        found = network.eval()(torch.tensor(images).permute(0, 3, 1, 2))
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found.numpy() / scale, expected / scale, atol=1e-4)
    assert np.ptp(expected) > 1e-2 * scale


@pytest.mark.parametrize(
    "field", [{"version": "v2"}, {"shortcut": "A"}, {"se_ratio": 0.25}, {"stem": "deep"}]
)
def test_a_network_that_the_peer_lacks_is_refused(field):
    with pytest.raises(UserError, match=next(iter(field))):
        torch_resnet.Network(ResNet(**field), 3)


def tiny():
    config = recipe.defaults()
    config.batch_size, config.num_epochs = 32, 1
    config.model.name, config.model.stage_sizes, config.model.width = "resnet18", (1,), 8
    config.model.stem, config.model.stem_pool, config.model.stem_width = "small", "max", 4
    config.model.zero_init = False
    config.data.name, config.data.train_split = "digits", "train[:10%]"
    config.optimizer.nesterov, config.optimizer.weight_decay = True, 0.05
    config.loss.label_smoothing = 0.1
    config.schedule.name, config.schedule.base_lr, config.schedule.base_batch_size = (
        "cosine",
        0.1,
        None,
    )
    return config


def exported(variables, folder):
    save_torch(variables, folder / "state.pth")
    return torch.load(folder / "state.pth")


def test_two_steps_give_our_parameters_and_statistics(tmp_path):
    parts = assemble(tiny())
    state, train_step = parts.create_state(), parts.train_step()
    trainer = torch_training.Trainer(parts, state.variables)
    requests = shard_batch(parts.mesh, {"requests": np.zeros((parts.mesh.size, 2), np.int32)})[
        "requests"
    ]
    before = exported(state.variables, tmp_path)
    for number in range(2):
        batch = parts.train_loader[number]
        state, metrics = train_step(state, shard_batch(parts.mesh, batch), requests)
        sums = trainer.step(batch, float(metrics.rate))
        assert sums["loss"] == pytest.approx(float(metrics.sums["loss"]), rel=1e-5)
        assert sums["top1"] == int(metrics.sums["top1"])
    after, found = exported(state.variables, tmp_path), trainer.network.state_dict()
    for name, expected in after.items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(found[name], expected, rtol=0, atol=1e-5, msg=name)
            assert (expected - before[name]).abs().max() > 1e-4, name


def test_a_run_reports_each_epoch_and_learns():
    config = tiny()
    config.num_epochs, config.data.train_split = 2.5, "train[:50%]"
    config.data.pad_and_crop, config.data.flip = 1, True
    records = []
    parts = assemble(config)
    torch_training.Trainer(parts, parts.create_state().variables).run(records.append)
    assert [record["epoch"] for record in records] == [1, 2, round(55 / 22, 4)]
    assert records[-1]["step"] == parts.plan.total_steps
    assert records[0]["seconds"] < records[1]["seconds"] < records[2]["seconds"]
    assert records[-1]["train_loss"] < records[0]["train_loss"]
    assert records[-1]["test_top1"] > 0.2
    assert (records[-1]["test_top1"] * 355) == pytest.approx(round(records[-1]["test_top1"] * 355))


@pytest.mark.parametrize(
    ("room", "name", "value"), [("optimizer", "name", "adam"), ("data", "mixup", 0.2)]
)
def test_a_recipe_that_the_peer_lacks_is_refused(room, name, value):
    config = tiny()
    config[room][name] = value
    with pytest.raises(UserError, match=rf"{room}\.{name}"):
        torch_training.Trainer(assemble(config), {})


def test_crops_are_windows_of_the_padded_image_and_half_are_mirrored():
    torch.manual_seed(0)
    image = torch.arange(1, 21, dtype=torch.uint8).reshape(1, 4, 5, 1)
    found = torch_training.augment(image.expand(400, 4, 5, 1), pixels=1, flip=True)
    padded = torch.nn.functional.pad(image[0, :, :, 0], (1, 1, 1, 1))
    windows = [padded[top : top + 4, left : left + 5] for top in range(3) for left in range(3)]
    plain = [sum(torch.equal(crop, window) for crop in found[..., 0]) for window in windows]
    mirrored = [
        sum(torch.equal(crop, window.flip(1)) for crop in found[..., 0]) for window in windows
    ]
    assert sum(plain) + sum(mirrored) == 400
    assert min(plain + mirrored) > 5
    assert 150 < sum(mirrored) < 250
