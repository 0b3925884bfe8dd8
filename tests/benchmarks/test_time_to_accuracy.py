"""Time to accuracy is read from the logs of our runs and of PyTorch's."""

import subprocess
import sys
from pathlib import Path

import fabricate
import pytest

from benchmarks import run_logs, time_to_accuracy

ROOT = Path(__file__).parents[2]


def fabricated(scores, seed=0, **header):
    """A run of 10 steps of 100 images an epoch, 5 s each epoch, with these test scores."""
    lines = [
        {
            "step": 10 * n,
            "epoch": float(n),
            "seconds": 5.0 * n,
            "steady_seconds": 4.0 * n,
            "test_top1": top1,
        }
        for n, top1 in enumerate(scores, 1)
    ]
    header = {
        "name": "recipe",
        "seed": seed,
        "batch_size": 100,
        "cores": 2,
        "date": "2020-01-02T00",
    } | header
    return run_logs.Log(header | {"versions": {"torch": "2.0"}, "command": "python x"}, lines)


def test_the_time_is_that_of_the_first_epoch_which_gets_there():
    log = fabricated([0.90, 0.92, 0.91, 0.93])
    assert [time_to_accuracy.time_to(log, target) for target in (0.9, 0.92, 0.93, 0.94)] == [
        5,
        10,
        20,
        None,
    ]


def test_runs_that_never_get_there_are_counted():
    assert time_to_accuracy.median_time([4.0, None, 8.0]) == "6 (2 of 3)"
    assert time_to_accuracy.median_time([4.0, 5.0]) == "4"
    assert time_to_accuracy.median_time([None]) == "not reached"


def test_the_page_sets_both_beside_each_other():
    ours = {"recipe": [fabricated([0.91, 0.93, 0.95], seed) for seed in (0, 1)]}
    page = time_to_accuracy.page(ours, {"recipe": [fabricated([0.90, 0.91, 0.93])]})
    rows = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in page.splitlines()
        if line.startswith("| recipe |")
    ]
    assert rows[1][2:] == ["2", "10", "15", "0.9500 ± 0.0000", "15", "5 to 5", "200 (250)"]
    assert rows[2][1:6] == ["PyTorch 2.0", "1", "15", "not reached", "0.9300"]
    alone = time_to_accuracy.page({}, {"recipe": [fabricated([0.90])]}).splitlines()
    assert {line.count("|") for line in alone if line.startswith("|")} == {10}
    assert any("not yet measured" in line for line in alone)


def test_the_command_trains_in_pytorch_and_keeps_a_log(tmp_path):
    pytest.importorskip("torch")
    fabricate.idx_directory(tmp_path / "data", train=80, test=24, size=28)
    command = [sys.executable, "-m", "benchmarks.time_to_accuracy"]
    command += ["--config=configs/resnet18_fashion_mnist.py", "--config.data.name=idx"]
    command += [f"--config.data.dir={tmp_path / 'data'}", "--config.data.train_split=train[:50%]"]
    command += [
        "--config.batch_size=16",
        "--config.num_epochs=1",
        "--config.model.width=4",
        "--config.model.stage_sizes=[1,1]",
    ]
    done = subprocess.run(
        [*command, f"--output={tmp_path}"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (name, [log]), *_ = run_logs.read_all(tmp_path / "fashion_mnist", "torch_").items()
    assert (log.header["train_images"], log.header["seed"]) == (40, 0)
    assert log.epochs[-1]["step"] == 2
    assert 0 <= log.top1 <= 1
    assert str(tmp_path) not in log.header["command"]
    assert f"| {name} | PyTorch" in (tmp_path / "time_to_accuracy.md").read_text()
