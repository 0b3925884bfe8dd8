"""The page of Fashion-MNIST results is made from what runs leave behind."""

import json
import statistics
import sys
from pathlib import Path

import fabricate
import pytest

from benchmarks import fashion_mnist, run_logs
from resnet_jax import config as recipe
from resnet_jax.commands.train import train
from resnet_jax.errors import UserError

COMMAND = [
    "/tmp/clone/launch.py",
    "--config=/tmp/clone/configs/resnet18_fashion_mnist.py",
    "--config.data.name",
    "idx",
]
COMMAND += [
    "--config.data.dir=/data",
    "--config.data.train_split=train[:50%]",
    "--workdir=/tmp/run",
]


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of a small net on fabricated images, started by `COMMAND`."""
    root = tmp_path_factory.mktemp("fashion")
    fabricate.idx_directory(root / "data", train=80, test=24)
    config = run_logs.load_recipe("resnet18_fashion_mnist")
    config.batch_size, config.num_epochs, config.log_every_steps = 16, 2.5, 1
    config.model.stage_sizes, config.model.width, config.model.stem = (1,), 4, "small"
    config.data.name, config.data.dir, config.data.train_split = (
        "idx",
        str(root / "data"),
        "train[:50%]",
    )
    recipe.validate(config)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", COMMAND)
        train(config, str(root / "sweep" / "seed=0"))
    return root / "sweep" / "seed=0"


def test_a_finished_run_is_kept_with_what_it_was(workdir):
    log = run_logs.from_workdir(workdir)
    header, records = log.header, [json.loads(line) for line in (workdir / "metrics.jsonl").open()]
    assert (header["train_images"], header["test_images"]) == (40, 24)
    assert header["net"] == "resnet18 stage_sizes=1 stem=small width=4"
    assert header["parameters"] == 36 + 8 + 2 * (144 + 8) + 50
    assert header["fields"]["optimizer.nesterov"] is True
    assert not {"data.dir", "data.mean", "model.num_classes", "seed"} & header["fields"].keys()
    assert header["name"].startswith("resnet18_fashion_mnist,")
    assert "data.train_split=train[:50%]" in header["name"]
    assert [line["epoch"] for line in log.epochs] == [1, 2, 2.5]
    assert log.top1 == records[-1]["top1"]
    stretches = [record for record in records if record["split"] == "train"]
    assert log.epochs[-1]["seconds"] == pytest.approx(
        sum(16 / record["images_per_sec"] for record in stretches), abs=0.01
    )
    assert log.epochs[0]["train_top1"] == pytest.approx(
        sum(r["top1"] for r in stretches[:2]) / 2, abs=1e-5
    )


def test_the_command_names_no_place():
    assert (
        run_logs.command_line(COMMAND)
        == "python launch.py --config=configs/resnet18_fashion_mnist.py --config.data.name=idx"
        " --config.data.dir=DIR '--config.data.train_split=train[:50%]'"
    )
    assert run_logs.recipe_of(["launch.py", "--config", "x/y.py"]) == "y"
    words = [
        "/a/benchmarks/cpu_training.py",
        "--networks",
        "resnet18",
        "resnet50",
        "--output",
        "/tmp/x",
        "--rounds=3",
    ]
    assert (
        run_logs.command_line(words)
        == "python -m benchmarks.cpu_training --networks resnet18 resnet50 --output=results"
        " --rounds=3"
    )


def test_an_unfinished_run_is_left_out_and_a_held_out_part_refused(workdir, tmp_path):
    (tmp_path / "run").mkdir()
    for name in ("config.json", "environment.json"):
        (tmp_path / "run" / name).write_text((workdir / name).read_text())
    lines = (workdir / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "run" / "metrics.jsonl").write_text("".join(lines[:-1]))
    assert run_logs.from_workdir(tmp_path / "run") is None
    text = (workdir / "config.json").read_text()
    (tmp_path / "run" / "config.json").write_text(
        text.replace('"eval_split": null', '"eval_split": "train[90%:]"')
    )
    with pytest.raises(UserError, match=r"train\[90%:\]"):
        run_logs.from_workdir(tmp_path / "run")
    with pytest.raises(UserError, match="no run"):
        run_logs.find_runs([tmp_path / "nothing"])


def fabricated(name, seed, top1, seconds):
    """A run of two epochs that ends with `top1` after `seconds`."""
    header = {
        "name": name,
        "seed": seed,
        "net": "resnet18",
        "parameters": 1234,
        "train_images": 48000,
    }
    header |= {
        "test_images": 10000,
        "num_epochs": 2.0,
        "fields": {},
        "device": "1 × CPU in 1 process",
        "cores": 2,
    }
    header |= {
        "versions": {"jax": "1.0"},
        "commit": None,
        "date": "2020-01-02T03:04:05",
        "starts": 1,
    }
    line = {"step": 1, "epoch": 1.0, "seconds": seconds / 2, "steady_seconds": seconds / 4}
    line |= {"train_loss": 1.0, "train_top1": 0.5, "test_loss": 1.0, "test_top1": 0.8}
    last = line | {
        "step": 2,
        "epoch": 2.0,
        "seconds": seconds,
        "steady_seconds": seconds / 2,
        "test_top1": top1,
    }
    return run_logs.Log(header | {"command": "python launch.py"}, [line, last])


def test_the_page_has_mean_deviation_and_times(tmp_path):
    scores = [0.88, 0.89, 0.93]
    for seed, top1 in enumerate(scores):
        run_logs.write(fabricated(fashion_mnist.TUTORIAL, seed, top1, 200 + seed), tmp_path)
    run_logs.write(fabricated("other", 0, 0.91, 50), tmp_path)
    logs = run_logs.read_all(tmp_path)
    lines = fashion_mnist.page(logs).splitlines()
    row = next(line for line in lines if line.startswith(f"| {fashion_mnist.TUTORIAL} "))
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[5:9] == [f"0.9000 ± {statistics.stdev(scores):.4f}", "3", "201", "100.5 (50.2)"]
    assert cells[-1] == "2 CPU cores"
    assert any("16.8 to 19.4 times faster" in line for line in lines)
    assert any(line.startswith("| other ") and "| 0.9100 | 1 |" in line for line in lines)


def test_page_and_picture_are_made_again_from_the_kept_logs_alone(workdir, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    made = []
    for arguments in (["--runs", str(workdir.parent)], []):
        monkeypatch.setattr(sys, "argv", ["fashion_mnist", *arguments, "--output", str(tmp_path)])
        assert fashion_mnist.main() == 0
        made.append(
            [(tmp_path / f"fashion_mnist.{suffix}").read_text() for suffix in ("md", "svg")]
        )
    assert made[0] == made[1]
    assert "(n = 1)" in made[0][1]
    kept = list(Path(tmp_path, "fashion_mnist").rglob("*.jsonl"))
    assert [path.name for path in kept] == ["seed0.jsonl"]
    assert kept[0].stat().st_size < 3000


def test_without_any_log_it_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["fashion_mnist", "--output", str(tmp_path)])
    assert fashion_mnist.main() == 1
    assert "--runs" in capsys.readouterr().err
