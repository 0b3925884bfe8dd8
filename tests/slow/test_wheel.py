"""The package as pip installs it, without the repository: what is inside, and what runs."""

import os
import subprocess
import sys
import zipfile

import pytest
from running import ROOT


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    into = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", str(into), str(ROOT)]
    done = subprocess.run(pip, capture_output=True, text=True, check=False)
    if done.returncode and "hatchling" in done.stderr:
        pytest.skip("the package index, from which the builder comes, cannot be reached")
    assert not done.returncode, done.stderr
    return next(into.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """Runs a program of an environment that has the wheel, and the packages of this one."""
    directory = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", directory / "env"], check=True)
    python = directory / "env" / "bin" / "python"
    others = [path for path in sys.path if path.endswith("site-packages")]
    where = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = subprocess.run([python, "-c", where], capture_output=True, text=True, check=True).stdout
    # Paths alone: an editable install of the checkout, which is a .pth file there, stays away.
    with open(f"{site.strip()}/others.pth", "w") as listed:
        listed.write("\n".join(others))
    install = ["-m", "pip", "install", "-q", "--no-deps", "--force-reinstall", wheel]
    subprocess.run([python, *install], check=True, capture_output=True)
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}

    def run(program, *arguments):
        done = subprocess.run(
            [python.with_name(program), *arguments], cwd=directory, check=False,
            env=environment | {"XLA_FLAGS": ""}, capture_output=True, text=True,
        )  # fmt: skip
        assert not done.returncode, done.stdout + done.stderr
        return done.stdout

    return run


def test_the_wheel_has_recipes_tables_and_types_and_nothing_of_the_checkout(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    for recipe in (ROOT / "configs").rglob("*.py"):
        assert f"resnet_jax/{recipe.relative_to(ROOT).as_posix()}" in names
    assert {"resnet_jax/pretrained.csv", "resnet_jax/py.typed"} <= set(names)
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"resnet_jax", "flax_resnet"}
    here = {path for path in (ROOT / "resnet_jax").rglob("*") if "__pycache__" not in path.parts}
    files = {path.relative_to(ROOT).as_posix() for path in here if path.is_file()}
    assert files <= set(names)


def test_the_package_is_found_in_the_environment_with_names_and_tables(installed):
    said = installed(
        "python",
        "-c",
        "import resnet_jax; print(resnet_jax.__file__);"
        "print(len(resnet_jax.list_models()), len(resnet_jax.list_pretrained()));"
        "from resnet_jax.data.sources import imagenet; print(imagenet.readable(['n01440764']))",
    )
    assert str(ROOT) not in said
    assert "tench" in said


def test_the_commands_train_answer_and_list_without_the_checkout(installed):
    assert installed("resnet-jax", "--version") == installed(
        "python", "-m", "resnet_jax", "--version"
    )
    assert "imagenet/resnet50" in installed("resnet-jax", "--mode=recipes")
    short = ("--config.num_epochs=2", "--config.model.width=4", "--workdir=run")
    said = installed("resnet-jax", "--config=quickstart", *short)
    assert "best: top1" in said
    assert "is finished" in installed("python", "-m", "resnet_jax", "--config=quickstart", *short)
    assert '"top1"' in installed("resnet-jax", "--mode=evaluate", "--workdir=run")
    assert "25,557,032" in installed("resnet-jax", "--mode=summarize", "--model=resnet50")
