"""Broken side files of a run by the thousand: only the documented errors may come out.

    python tests/fuzz_run_files.py --cases=20000 [--seed=1]

runs the long form; the test-suite runs a short one.
"""

import argparse
import collections
import os
import pathlib
import shutil
import sys
import tempfile

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent / "data"))

from fuzz import mutated
from ml_collections import ConfigDict

from resnet_jax import UserError, data, run, run_files
from resnet_jax.distributed.owner import Owner
from resnet_jax.training.reporting import logbook

WORKDIR = pathlib.Path(__file__).parent / "workdir"
FILES = (
    "config.json",
    "classes.txt",
    "environment.json",
    "data.json",
    "metrics.jsonl",
    "lock.json",
    "checkpoints/STEP/digest.json",
    "checkpoints/STEP/notes/metadata",
)
FOREIGN = (
    *(b"", b"\0" * 4096, b"null", b"[]", b"{}", b"5", b'"text"', b"[[]]", b"[{}]", b"[" * 5000),
    *(b'{"training": {}}', b'{"training": {"kind": "arrays", "digest": 5}}', b"\xff\xfe{}"),
)


def fresh_copy(whole: pathlib.Path, workdir: pathlib.Path, with_checkpoints: bool) -> None:
    """Makes a directory like another; its checkpoints only where they may have been touched."""
    if with_checkpoints and workdir.exists():
        shutil.rmtree(workdir)
    workdir.mkdir(exist_ok=True)
    for path in [path for path in workdir.iterdir() if path.is_file()]:
        path.unlink()
    for path in whole.iterdir():
        if path.is_file():
            shutil.copy(path, workdir)
        elif with_checkpoints:
            shutil.copytree(path, workdir / path.name)


def start(
    workdir: pathlib.Path, config: ConfigDict, sources: list[data.Source], with_checkpoints: bool
) -> None:
    """Reads and writes what a start does before anything is computed."""
    owner = Owner.read((workdir / "lock.json").read_bytes())
    owner.state_here(Owner.this_process())
    steps = [
        lambda: run.merge_with_saved(config, workdir),
        lambda: run.read_classes(workdir),
        lambda: run.check_data(workdir, *sources),
        lambda: run.describe(workdir, config, *sources, say=lambda line: None),
        lambda: run.read_config(workdir),
        lambda: logbook.Logbook(workdir, step=10, say=lambda line: None).close(),
        lambda: logbook.read(workdir),
    ]
    checkpoints = run.open_checkpoints(workdir, config, say=lambda line: None)
    steps += with_checkpoints * [
        checkpoints.newest_intact,
        checkpoints.best_step,
        lambda: run.pick_step(checkpoints, "best"),
    ]
    errors = []
    for step in steps:
        try:
            step()
        except UserError as error:
            errors.append(str(error))
            if "\n" in str(error):
                raise AssertionError(f"an error of several lines: {error}") from error
    checkpoints.close()
    if errors:
        raise UserError(errors[0])


def main(cases: int, seed: int) -> int:
    draws = np.random.default_rng(seed)
    config = run.read_config(WORKDIR)
    sources = [data.open_source(config.data, train=train) for train in (True, False)]
    # Neither is what is tried here, and both take most of the time.
    run_files.describe_start = lambda images, shape: {"train_images": images}
    os.fsync = lambda descriptor: None
    ended = collections.Counter()
    with tempfile.TemporaryDirectory() as folder:
        whole = pathlib.Path(folder) / "whole"
        shutil.copytree(WORKDIR, whole)
        last = sorted(int(path.name) for path in (whole / "checkpoints").iterdir())[-1]
        run.describe(whole, config, *sources, say=lambda line: None)
        (whole / "lock.json").write_text('{"token": "0"}')
        files = [whole / name.replace("STEP", str(last)) for name in FILES]
        workdir = pathlib.Path(folder) / "run"
        others = b"".join(path.read_bytes() for path in files)
        for case in range(cases):
            file = files[case % len(files)]
            name = str(file.relative_to(whole))
            is_foreign = draws.random() < 0.2
            content = (
                FOREIGN[draws.integers(len(FOREIGN))]
                if is_foreign
                else mutated(file.read_bytes(), draws, others)
            )
            in_checkpoint = name.startswith("checkpoints")
            fresh_copy(whole, workdir, with_checkpoints=in_checkpoint or case == 0)
            (workdir / name).write_bytes(content)
            try:
                start(workdir, config, sources, with_checkpoints=in_checkpoint)
                ended[file.name, "went on"] += 1
            except UserError:
                ended[file.name, "told"] += 1
            except Exception:
                print(f"case {case}, {name}: {content[:500]!r}", file=sys.stderr)
                raise
    print(dict(ended))
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.exit(main(arguments.cases, arguments.seed))
