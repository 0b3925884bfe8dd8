"""`--mode=summarize` for a name and for a recipe."""

import pytest

from resnet_jax import UserError, config
from resnet_jax.commands import summarize


def test_a_name_is_summarized_beside_its_reference(capsys):
    summarize.run(model="resnet50")
    out = capsys.readouterr().out
    assert "resnet50, 224x224x3 images, 1000 classes" in out
    assert "25,557,032 parameters (equal), 4,089.18 MMACs (equal); torchvision" in out


def test_a_recipe_is_summarized_with_its_own_fields(capsys):
    recipe = config.defaults()
    recipe.model.name, recipe.model.num_classes, recipe.data.image_size = "resnet18", 10, 32
    summarize.run(config=recipe)
    out = capsys.readouterr().out
    assert "11,181,642" in out
    assert "(here -507,870)" in out


@pytest.mark.parametrize("arguments", [{}, {"model": "resnet18", "config": config.defaults()}])
def test_one_of_name_and_recipe_is_asked_for(arguments):
    with pytest.raises(UserError, match="either"):
        summarize.run(**arguments)


def test_an_unknown_name_is_an_error():
    with pytest.raises(UserError, match="resnet50"):
        summarize.run(model="resnet51")
