"""The commands that the pages tell: finds them, and runs them where their data is fabricated.

    PYTHONPATH=tests python tests/pages.py [PAGE ...]

runs every block of the named pages (all of them by default) and tells what failed. A comment before
a block, `<!-- not run: REASON -->`, leaves it out.
"""

import contextlib
import dataclasses
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fabricate
import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
# What a block may be left out for.
REASONS = (
    "needs a GPU",
    "needs a TPU",
    "needs a cluster",
    "needs Docker",
    "needs a package index",
    "needs the package flatbuffers",
    "needs the package onnx",
    "measures for minutes",
    "runs the tests",
    "a form to fill in",
)
COMMANDS = ("python", "python3", "pip", "docker", "kubectl", "mpirun", "sbatch", "gcloud")
# Makes a recipe's training a matter of seconds.
SHORT = (
    "--config.num_epochs=1 --config.batch_size=8 --config.data.image_size=32"
    " --config.data.eval_size=32 --config.schedule.warmup_epochs=0"
)
NARROW = "--config.model.width=8 --config.model.stage_sizes=1,1 --config.model.stem_width=8"
PRETRAINED = ("finetune_folder", "linear_probe")


@dataclasses.dataclass(frozen=True)
class Block:
    """Commands or code of a page.

    Attributes:
      page: the page's file.
      line: the first line's number in it.
      kind: "sh" or "python".
      code: the lines.
      reason: why it is not run; "" where it is.
    """

    page: Path
    line: int
    kind: str
    code: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Returns a page's blocks of shell and Python, fenced, or indented and begun by a command."""
    found, reason, lines = [], "", iter(enumerate(page.read_text().splitlines(), 1))
    for number, line in lines:
        if mark := re.fullmatch(r"<!-- not run: (.+) -->", line):
            package = mark[1].removeprefix("needs the package ")
            there = package != mark[1] and importlib.util.find_spec(package)
            reason = "" if there else mark[1]
        elif fence := re.fullmatch(r"```(\w*)", line):
            code = "\n".join(_until_fence(lines))
            if fence[1] in ("sh", "python"):
                found.append(Block(page, number + 1, fence[1], code, reason))
            reason = ""
        elif (
            line.startswith("    ") and line.strip() and line.split()[0].split("/")[-1] in COMMANDS
        ):
            # The README's two lines, which install the package into a fresh environment.
            found.append(Block(page, number, "sh", line.strip(), "needs a package index"))
        elif line:
            reason = ""
    return found


def _until_fence(lines: Iterator[tuple[int, str]]) -> Iterator[str]:
    for _, line in lines:
        if line == "```":
            return
        yield line


def shortened(code: str) -> str:
    """Returns commands that take seconds: their batches and images are small."""

    def short(found: re.Match) -> str:
        recipe = Path(found[1]).stem
        narrow = "" if recipe in PRETRAINED else NARROW
        return f"{found[0]} {SHORT} {narrow}"

    # The made-up data has fewer images than a batch of a page.
    code = re.sub(r" --config\.batch_size=\d+", "", code.replace("\\\n", " "))
    code = re.sub(r" --eval_size=[\d,]+", " --eval_size=32,40", code)
    return re.sub(r"(?:launch\.py|resnet-jax|resnet_jax)(?: .*?)? --config=(\S+)", short, code)


def run(block: Block, directory: Path, environment: dict[str, str], timeout: int) -> str:
    """Runs a block in a directory; returns what it said where it failed, else ""."""
    code = shortened(block.code) if block.kind == "sh" else block.code
    command = ["bash", "-euc", code] if block.kind == "sh" else [sys.executable, "-c", code]
    try:
        done = subprocess.run(
            command, cwd=directory, env=environment, capture_output=True, text=True,
            timeout=timeout, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"not finished after {timeout} s"
    return "" if done.returncode == 0 else (done.stdout + done.stderr)[-2000:]


@contextlib.contextmanager
def prepared(directory: Path) -> Iterator[dict[str, str]]:
    """Puts into a directory what the pages speak of; gives the environment that commands need.

    The environment has `python` for this interpreter, this checkout for its package, and a hub of
    random weights.
    """
    for name in ("launch.py", "configs", "benchmarks", "examples", "docs"):
        (directory / name).symlink_to(ROOT / name)
    _write_data(directory)
    _write_hub(directory / "hub")
    # What `source .venv/bin/activate` finds: the environment is active already.
    (directory / ".venv" / "bin").mkdir(parents=True)
    (directory / ".venv" / "bin" / "activate").touch()
    programs = directory / "bin"
    programs.mkdir()
    for name in ("python", "python3"):
        _write_program(programs / name, '"$@"')
    _write_program(programs / "resnet-jax", '-m resnet_jax "$@"')
    server = subprocess.Popen(
        [sys.executable, ROOT / "tests" / "hub_server.py", directory / "hub", "0"],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    environment = os.environ | {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "XLA_FLAGS": "",
        "HF_ENDPOINT": f"http://127.0.0.1:{server.stdout.readline().strip()}",
        "HF_HOME": str(directory / "hub_cache"),
        "JAX_COMPILATION_CACHE_DIR": str(directory / "programs"),
    }
    try:
        # What pages on trained networks take for granted.
        quickstart = Block(Path(), 0, "sh", "python launch.py --config=quickstart")
        assert not (said := run(quickstart, directory, environment, timeout=600)), said
        yield environment
    finally:
        server.terminate()
        server.wait()


def leave_the_quickstart(directory: Path) -> None:
    """Removes the runs of a page, which the next one may make again."""
    for path in (directory / "runs").iterdir():
        if not path.is_dir():
            path.unlink()
        elif path.name != "quickstart":
            shutil.rmtree(path)


def _write_program(path: Path, arguments: str) -> None:
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" {arguments}\n')
    path.chmod(0o755)


def _write_data(directory: Path) -> None:
    draws = np.random.default_rng(0)
    for name in ("pictures/cat", "pictures/dog", "new"):
        (directory / name).mkdir(parents=True)
        for number in range(24 if "pictures" in name else 2):
            pixels = draws.integers(0, 256, (40, 50, 3), np.uint8)
            Image.fromarray(pixels).save(directory / name / f"{number + 1}.jpg")
    for name in (
        "cat.jpg",
        "dog.png",
        "one.png",
        "two.png",
        "new.jpg",
        "image.png",
        "new/zero.png",
    ):
        shutil.copy(directory / "new" / "1.jpg", directory / name)
    fabricate.imagenet(directory / "DIR", train=48)
    ids = fabricate.wordnet_ids()[:2]
    _write_tars(directory / "TARS", ids)
    few = {name: [fabricate.jpeg(place) for place in range(4)] for name in ids}
    one = [fabricate.jpeg(0)]
    all_classes = dict.fromkeys(fabricate.wordnet_ids(), one)
    fabricate.folder_tree(directory / "IMAGENET", {"train": all_classes, "val": few})
    fabricate.folder_tree(directory / "imagenet-a", {"": few})


def _write_tars(directory: Path, ids: list[str]) -> None:
    """Writes ImageNet's two tars: as many validation images as it has, and few to train on."""
    directory.mkdir()
    inner = []
    for wordnet_id in ids:
        files = [(f"{wordnet_id}_{place}.JPEG", fabricate.jpeg(place)) for place in range(24)]
        fabricate.tar(directory / "class.tar", files)
        inner.append((f"{wordnet_id}.tar", (directory / "class.tar").read_bytes()))
    (directory / "class.tar").unlink()
    fabricate.tar(directory / "ILSVRC2012_img_train.tar", inner)
    image = fabricate.jpeg(0, 16, 16)
    names = [f"ILSVRC2012_val_{place:08d}.JPEG" for place in range(1, 50_001)]
    fabricate.tar(directory / "ILSVRC2012_img_val.tar", [(name, image) for name in names])


def _random(path: tuple, leaf: Any) -> np.ndarray:
    """Returns an array of a network that is not trained: its maps have about the size of images."""
    if path[-1].key == "kernel":
        fan_in = max(1, np.prod(leaf.shape[:-1]))
        return np.random.default_rng(0).normal(0, fan_in**-0.5, leaf.shape).astype(np.float32)
    return np.full(leaf.shape, path[-1].key in ("scale", "var"), np.float32)


def _write_hub(directory: Path) -> None:
    """Writes repositories of the right structure and random weights, and files of such."""
    import jax

    from resnet_jax import create_model, save_torch

    for name, repository in (("resnet50", "resnet50.a1_in1k"), ("resnet18", "resnet18.a1_in1k")):
        model = create_model(name)
        shapes = jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 32, 32, 3)))
        variables = jax.tree.map_with_path(_random, shapes)
        into = directory / "timm" / repository
        into.mkdir(parents=True)
        save_torch(variables, into / "model.safetensors")
        shutil.copy(into / "model.safetensors", directory.parent / f"{name}.safetensors")
        (into / "config.json").write_text(_CARD.replace("NAME", name))
    variables["params"]["fc"] = {
        name: leaf[..., :2] for name, leaf in variables["params"]["fc"].items()
    }
    save_torch(variables, directory.parent / "mine.safetensors")
    (directory.parent / "names.txt").write_text("cat\ndog\n")


_CARD = """{"architecture": "NAME", "num_classes": 1000, "pretrained_cfg": {"tag": "a1_in1k",
"input_size": [3, 224, 224], "test_input_size": [3, 288, 288], "interpolation": "bicubic",
"crop_pct": 0.95, "test_crop_pct": 1.0, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
"num_classes": 1000, "pool_size": [7, 7], "first_conv": "conv1", "classifier": "fc",
"license": "apache-2.0"}}"""


def main(names: list[str]) -> int:
    """Runs the blocks of the named pages, or of all, and returns the number of failures."""
    if unknown := set(names) - {page.stem for page in PAGES}:
        sys.exit(f"no such page: {', '.join(sorted(unknown))}")
    failures = 0
    with tempfile.TemporaryDirectory() as made, prepared(Path(made)) as environment:
        for page in (page for page in PAGES if not names or page.stem in names):
            leave_the_quickstart(Path(made))
            failures += sum(_tell(block, Path(made), environment) for block in blocks(page))
    return failures


def _tell(block: Block, directory: Path, environment: dict[str, str]) -> bool:
    """Runs a block, prints what came of it, and returns whether it failed."""
    if block.reason:
        print(f"left out  {block}: {block.reason}", flush=True)
        return False
    start = time.monotonic()
    said = run(block, directory, environment, timeout=600)
    outcome = "FAILED  " if said else "ran     "
    print(f"{outcome}  {block}, {time.monotonic() - start:.0f} s", flush=True)
    if said:
        print(said)
    return bool(said)


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
