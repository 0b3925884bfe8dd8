"""The tutorial pages' own commands, from `mkdir` to an accuracy, on fabricated pictures."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

import resnet_jax
from resnet_jax import create_model, save_torch

ROOT = Path(__file__).parents[1]
PAGES = ("folder", "finetune_folder", pytest.param("linear_probe", marks=pytest.mark.slow))
# Small and short, and weights that need no network.
SHORT = ("--config.num_epochs=4", "--config.batch_size=8", "--config.data.image_size=32")
SMALL = ("--config.model.width=8", "--config.model.stage_sizes=1,1", "--config.model.stem_width=8")


def put_pictures(folder, colour, seeds):
    """Writes pictures that a colour tells from the other class's."""
    for seed in seeds:
        pixels = np.random.default_rng(seed).integers(0, 90, (40, 50, 3), np.uint8)
        pixels[..., colour] += 120
        Image.fromarray(pixels).save(folder / f"{seed}.jpg")


def shell(command, directory, extra=()):
    words = [sys.executable if word == "python" else word for word in shlex.split(command)]
    words = [str(ROOT / word) if word == "launch.py" else word for word in words]
    done = subprocess.run(
        [*words, *extra], cwd=directory, capture_output=True, text=True, check=False, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("page", PAGES)
def test_a_tutorial_runs_from_mkdir_to_an_accuracy(page, tmp_path):
    blocks = re.findall(
        r"^```sh\n(.+?)^```", (ROOT / "docs" / f"{page}.md").read_text(), re.S | re.M
    )
    mkdir, train, evaluate, *_ = (block.strip() for block in blocks)
    shell(mkdir, tmp_path)
    for colour, name in enumerate(("cat", "dog")):
        put_pictures(tmp_path / "pictures" / name, colour, range(30 * colour, 30 * colour + 30))
    extra = [*SHORT, *SMALL]
    if page != "folder":
        model = create_model("resnet18" if page == "finetune_folder" else "resnet50", num_classes=9,
                             width=8, stage_sizes=(1, 1), stem_width=8)  # fmt: skip
        made = model.init(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
        save_torch(made, tmp_path / "weights.safetensors")
        extra += ["--config.init.weights=weights.safetensors"]
    printed = shell(train, tmp_path, extra)
    top1 = float(re.search(r"best: top1 ([\d.]+)", printed)[1])
    assert top1 > 0.6
    if page != "folder":
        assert "new: fc.bias, fc.kernel" in printed
        assert "frozen" in printed
    scored = json.loads(shell(evaluate, tmp_path).splitlines()[-1])
    assert scored["top1"] == pytest.approx(top1, abs=1e-4)


def test_the_page_on_answers_runs_from_a_run_to_answers_and_scores(tmp_path):
    page = (ROOT / "docs" / "predict.md").read_text()
    mkdir, train, predict, to_files, score, score_all, *_ = (
        block.strip() for block in re.findall(r"^```sh\n(.+?)^```", page, re.S | re.M)
    )
    (python,) = re.findall(r"^```python\n(.+?)^```", page, re.S | re.M)
    shell(mkdir, tmp_path)
    for colour, name in enumerate(("cat", "dog")):
        put_pictures(tmp_path / "pictures" / name, colour, range(30 * colour, 30 * colour + 30))
    put_pictures(tmp_path / "new", 0, [1])
    put_pictures(tmp_path / "new", 1, [2])
    shell(train, tmp_path, [*SHORT, *SMALL])
    lines = shell(predict, tmp_path).splitlines()
    assert [line.split()[:2] for line in lines] == [["new/1.jpg", "cat"], ["new/2.jpg", "dog"]]
    program = f"{sys.executable} {ROOT / 'launch.py'}"
    commands = to_files.replace("python launch.py", program)
    subprocess.run(["bash", "-ec", commands], cwd=tmp_path, check=True, timeout=120)
    assert (tmp_path / "answers.csv").read_text().splitlines()[1].startswith("new/1.jpg,cat,")
    answers = map(json.loads, (tmp_path / "answers.jsonl").read_text().splitlines())
    assert {each["file"]: each["top"][0]["class"] for each in answers} == {
        "new/1.jpg": "cat",
        "new/2.jpg": "dog",
    }
    done = subprocess.run(
        [sys.executable, "-c", python], cwd=tmp_path, capture_output=True, text=True, check=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["cat", "dog"]
    records = [json.loads(line) for line in shell(score, tmp_path).splitlines()[-2:]]
    assert [record["eval_size"] for record in records] == [64, 80]
    assert (tmp_path / "scores" / "confusion_80.csv").is_file()
    assert json.loads(shell(score_all, tmp_path).splitlines()[-1])["examples"] == 60


def test_a_restored_run_prepares_pictures_as_it_scored_them(tmp_path):
    """The public way, `preprocess`, gives the run's own accuracy."""
    for colour, name in enumerate(("cat", "dog")):
        for split, seeds in (("train", range(20)), ("val", range(100, 112))):
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            put_pictures(folder, colour, [seed + 1000 * colour for seed in seeds])
    shell(
        f"python launch.py --config=configs/folder.py --config.data.dir={tmp_path / 'pictures'}"
        " --config.data.eval_fraction=None --config.data.interpolation=bicubic"
        f" --config.data.eval_size=48 --config.data.eval_crop=1.0 --workdir={tmp_path / 'run'}",
        tmp_path,
        [*SHORT, *SMALL],
    )
    model, variables, description = resnet_jax.restore(tmp_path / "run")
    assert (description.image_size, description.eval_size) == (32, 48)
    assert (description.interpolation, description.crop) == ("bicubic", 1.0)
    paths = sorted((tmp_path / "pictures" / "val").glob("*/*.jpg"))
    images = resnet_jax.preprocess(paths, description)
    logits = jax.jit(model.apply)(variables, images)
    named = [description.classes[best] for best in logits.argmax(-1)]
    right = np.mean([name == path.parent.name for name, path in zip(named, paths, strict=True)])
    assert right == pytest.approx(description.scores["top1"])
