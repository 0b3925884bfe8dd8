"""A run that a trained network teaches, on images that grow: checked, exact and resumed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from running import log, tiny_recipe, without_the_end

import resnet_jax
from resnet_jax import save_torch
from resnet_jax.commands.train import train
from resnet_jax.distributed.mesh import shard_batch
from resnet_jax.experiment import Experiment
from resnet_jax.models import create_model
from resnet_jax.training.distillation import distance

# Another normalisation than that of the teacher, which is the digits' own.
MOMENTS = {"data__mean": (0.5,), "data__std": (0.25,)}


@pytest.fixture(scope="module")
def teacher(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("teacher")
    train(tiny_recipe(num_epochs=1.0), str(workdir))
    return workdir


def student(teacher, **changes):
    fields = {"distill__teacher": str(teacher), "distill__temperature": 2.0, **changes}
    return tiny_recipe(**fields)


def test_the_teacher_sees_the_pixels_of_the_step_normalised_as_it_is_used_to(teacher):
    experiment = Experiment.for_training(
        student(teacher, distill__weight=1.0, data__flip=True, data__random_erasing=0.5, **MOMENTS)
    )
    state, batch = experiment.create_state(), experiment.train_loader[0]
    images, _ = experiment.augment(batch, state.seed)
    logits, _ = experiment.model.apply(
        state.trained_variables, images, train=True, mutable=["batch_stats"]
    )
    model, variables, description = resnet_jax.restore(teacher)
    variables = jax.device_get(variables)  # The images lie on all devices.
    pixels = images * 0.25 + 0.5
    taught = model.apply(
        variables,
        (pixels - jnp.array(description.mean)) / jnp.array(description.std),
        train=False,
    )
    expected = float(distance(logits, taught, 2.0).sum())
    _, metrics = experiment.train_step(state, shard_batch(experiment.mesh, batch))
    assert float(metrics.sums["loss"]) == pytest.approx(expected, rel=1e-4)


def test_a_taught_run_of_growing_images_goes_on_at_the_epoch_s_edge_bit_for_bit(
    teacher, tmp_path, capsys
):
    growing = {"data__image_size": 8, "data__progressive_sizes": (4,)}
    recipe = student(teacher, data__progressive_epochs=(1.0,), data__flip=True, **growing)
    straight = tmp_path / "straight"
    train(recipe, str(straight))
    said = capsys.readouterr().out
    assert "images of 4 to epoch 1, then 8" in said
    assert "its distance is 0.5 of the loss, at temperature 2" in said
    broken = without_the_end(straight, tmp_path / "broken")
    train(recipe, str(broken))
    assert "going on from step 22" in capsys.readouterr().out
    assert log(broken) == log(straight)
    ends = [resnet_jax.restore(workdir, "last")[1] for workdir in (broken, straight)]
    jax.tree.map(np.testing.assert_array_equal, *ends)


def zeros(name, num_classes):
    """Returns variables of a network, none of which has to be drawn."""
    model = create_model(name, num_classes=num_classes)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 1)))
    return jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)


def refused(**changes):
    with pytest.raises(resnet_jax.UserError) as error:
        Experiment.for_training(tiny_recipe(**changes))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_teacher_that_cannot_teach_is_refused_in_a_line(teacher, tmp_path):
    weights = str(tmp_path / "weights.safetensors")
    save_torch(zeros("resnet18", 7), weights)
    synthetic = {"data__name": "synthetic", "data__synthetic_classes": 3, "data__image_size": 8}
    run = {"distill__teacher": str(teacher)}
    for fields, words in (
        ({"distill__teacher": weights}, "name it, as list_models does, in config.distill.network"),
        (
            {"distill__teacher": weights, "distill__network": "resnet18"},
            "its classifier has not the 10 classes of the run",
        ),
        ({**run, **synthetic}, "its 10 classes are not the 3 of the data"),
        ({"distill__teacher": "nothing"}, "config.distill.teacher = 'nothing': neither a run"),
        ({**run, "distill__digest": "0" * 64}, "no longer the weights that the run began with"),
    ):
        assert words in refused(**fields)


def test_a_file_teaches_the_network_it_is_named_for(tmp_path):
    weights = str(tmp_path / "weights.safetensors")
    save_torch(zeros("resnet18", 10), weights)
    experiment = Experiment.for_training(
        tiny_recipe(distill__teacher=weights, distill__network="resnet18", data__image_size=24)
    )
    assert experiment.create_state().teacher["params"]["fc"]["kernel"].shape == (512, 10)


def test_a_teacher_of_larger_strides_than_the_smallest_images_bear_is_refused(tmp_path):
    weights = str(tmp_path / "weights.safetensors")
    save_torch(zeros("resnet18", 10), weights)
    named = {"distill__teacher": weights, "distill__network": "resnet18"}
    growing = {"data__progressive_sizes": (12,), "data__progressive_epochs": (1.0,)}
    for sizes, smallest in (({}, 8), ({"data__image_size": 24, **growing}, 12)):
        said = refused(**named, **sizes)
        assert f"need images of 17 pixels a side, the smallest of the run have {smallest}" in said


def test_sizes_too_small_for_the_strides_are_refused():
    with pytest.raises(resnet_jax.UserError, match="too small for the strides of resnet50"):
        tiny_recipe(
            model__name="resnet50",
            model__stem="imagenet",
            model__stage_sizes=(1, 1, 1, 1),
            data__image_size=64,
            data__progressive_sizes=(16,),
            data__progressive_epochs=(1.0,),
        )
