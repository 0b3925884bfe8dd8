"""`--mode=summarize` for a name and for a recipe."""

import pytest
from PIL import Image

from resnet_jax import UserError, config
from resnet_jax.commands.summarize import summarize


def test_a_name_is_summarized_beside_its_reference(capsys):
    summarize(model="resnet50")
    out = capsys.readouterr().out
    assert "resnet50, 224x224x3 images, 1000 classes" in out
    assert "25,557,032 parameters (equal), 4,089.18 MMACs (equal); torchvision" in out


def test_a_recipe_is_summarized_with_its_own_fields_although_its_data_is_missing(capsys, tmp_path):
    recipe = config.defaults()
    recipe.model.name, recipe.model.num_classes, recipe.data.image_size = "resnet18", 10, 32
    recipe.data.name, recipe.data.dir = "folder", str(tmp_path / "nowhere")
    summarize(config=recipe)
    out = capsys.readouterr().out
    assert "11,181,642" in out
    assert "(here -507,870)" in out
    assert "no picture of the data: config.data.dir" in out


def test_a_recipe_whose_data_is_there_is_shown_as_a_picture(capsys, tmp_path):
    recipe = config.defaults()
    recipe.model.name, recipe.data.name, recipe.batch_size = "cifar_resnet20", "digits", 16
    summarize(config=recipe, picture=str(tmp_path / "run" / "batch.png"))
    assert "cifar_resnet20, 8x8x1 images, 10 classes" in capsys.readouterr().out
    with Image.open(tmp_path / "run" / "batch.png") as picture:
        assert min(picture.size) > 4 * 96


@pytest.mark.parametrize("arguments", [{}, {"model": "resnet18", "config": config.defaults()}])
def test_one_of_name_and_recipe_is_asked_for(arguments):
    with pytest.raises(UserError, match="either"):
        summarize(**arguments)


def test_an_unknown_name_is_an_error():
    with pytest.raises(UserError, match="resnet50"):
        summarize(model="resnet51")


def test_a_network_with_other_fields_is_called_so_and_not_set_beside_the_one_of_its_name(
    capsys, tmp_path
):
    recipe = config.defaults()
    recipe.model.name, recipe.model.stage_sizes, recipe.model.width = "resnet18", (1, 1, 1), 16
    recipe.model.stem, recipe.data.name = "small", "digits"
    summarize(config=recipe, picture=str(tmp_path / "batch.png"))
    out = capsys.readouterr().out
    assert out.startswith("resnet18 with stage_sizes (1, 1, 1), stem small, width 16, 8x8x1 images")
    assert "reference" not in out


def test_the_numbers_are_told_although_the_picture_cannot_be_written(capsys, tmp_path):
    (tmp_path / "file").write_text("")
    recipe = config.defaults()
    recipe.model.name, recipe.data.name, recipe.batch_size = "cifar_resnet20", "digits", 16
    summarize(config=recipe, picture=str(tmp_path / "file" / "batch.png"))
    out = capsys.readouterr().out
    assert "8x8x1 images, 10 classes" in out
    assert "no picture of the data" in out
