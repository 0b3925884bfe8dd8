"""Two runs and one workdir, through `launch.py`: the second is refused, waits, or takes over."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from running import ROOT, output_of, tiny_recipe

from resnet_jax import run
from resnet_jax.commands.train import train
from resnet_jax.distributed.lock import FILE, LockLost
from resnet_jax.errors import UserError
from resnet_jax.training.reporting.reporter import Reporter

RECIPE = (
    "--config=configs/quickstart.py",
    "--config.model.width=4",
    "--config.model.stage_sizes=(1,)",
    "--config.schedule.warmup_epochs=0",
    "--config.log_every_steps=5",
)
ENDLESS = (
    "--config.num_epochs=4000",
    "--config.eval_every_epochs=5000",
    "--config.checkpoint.every_epochs=5000",
)
SLOW_COMMIT = """
import sys, time
from resnet_jax.__main__ import main
from resnet_jax.training.checkpointing import checksums
write = checksums.write_checksums
checksums.write_checksums = lambda *arguments, **keywords: (
    time.sleep(4), write(*arguments, **keywords)
)
sys.exit(main(["launch.py", *sys.argv[1:]]))
"""


def start(*arguments, program=("launch.py",)):
    return subprocess.Popen(
        [sys.executable, *program, *RECIPE, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process, status=0):
    output, errors = output_of(process)
    assert process.returncode == status, output + errors
    assert "Traceback" not in errors
    return output + errors


def wait_until(condition, process):
    for _ in range(1200):
        if condition():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.kill()
    raise AssertionError("it did not happen within a minute")


def lock_of(workdir):
    try:
        return json.loads((workdir / FILE).read_text())
    except FileNotFoundError:
        return {"process": None, "is_stopping": False}


def is_training(workdir):
    log = workdir / "metrics.jsonl"
    return log.exists() and log.stat().st_size > 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_second_run_is_refused_and_takes_over_at_once_when_the_first_has_ended(tmp_path, number):
    first = start(f"--workdir={tmp_path}", *ENDLESS, "--config.seed=1")
    wait_until(lambda: is_training(tmp_path), first)
    second = finish(start(f"--workdir={tmp_path}", "--config.seed=2"), status=1)
    (line,) = [line for line in second.splitlines() if line.startswith("error: ")]
    assert f"in use by process {first.pid} on {os.uname().nodename} since " in line
    assert first.poll() is None
    assert json.loads((tmp_path / "config.json").read_text())["seed"] == 1
    first.send_signal(number)
    first.communicate()
    assert (tmp_path / FILE).exists() == (number == signal.SIGKILL)
    # A run that was killed has no checkpoint and begins again; one that was stopped goes on.
    third = start(f"--workdir={tmp_path}", "--config.seed=1", *ENDLESS)
    wait_until(lambda: lock_of(tmp_path)["process"] == third.pid, third)
    third.send_signal(signal.SIGKILL)
    third.communicate()


def test_a_second_start_waits_for_a_first_one_that_is_stopping_and_goes_on(tmp_path):
    """As a scheduler does that puts a job back into its queue."""
    command = (f"--workdir={tmp_path}", "--config.num_epochs=3", "--config.eval_every_epochs=9")
    first = start(*command, "--config.checkpoint.every_epochs=9", program=["-c", SLOW_COMMIT])
    wait_until(lambda: is_training(tmp_path), first)
    first.send_signal(signal.SIGTERM)
    wait_until(lambda: lock_of(tmp_path)["is_stopping"], first)
    second = start(*command, "--config.checkpoint.every_epochs=9")
    assert "saved step" in finish(first, status=143)
    output = finish(second)
    assert "it is stopping, and this one waits for it" in output
    assert "going on from step" in output
    assert not (tmp_path / FILE).exists()


def tiny(**changes):
    return tiny_recipe(**{"num_epochs": 1, "checkpoint__every_epochs": 0.25, **changes})


def test_a_run_whose_lock_is_gone_stops_at_its_next_checkpoint_and_commits_none(
    tmp_path, monkeypatch
):
    before_step = Reporter.before_step

    def remove_lock(self, number):
        if number == 9:
            while not (tmp_path / "checkpoints" / "6").exists():
                time.sleep(0.01)
            (tmp_path / FILE).unlink()
        before_step(self, number)

    monkeypatch.setattr(Reporter, "before_step", remove_lock)
    with pytest.raises(LockLost, match=r"lock\.json is gone"):
        train(tiny(), str(tmp_path))
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert {name for name in names if name.isdigit()} == {"6"}
    monkeypatch.undo()
    train(tiny(), str(tmp_path))
    assert run.open_checkpoints(tmp_path, tiny()).steps()[-1] == 22


def test_a_run_that_cannot_begin_leaves_neither_lock_nor_directory(tmp_path):
    with pytest.raises(UserError, match="batch_size"):
        train(tiny(batch_size=1448), str(tmp_path / "run"))
    assert list(tmp_path.iterdir()) == []


def test_reading_a_run_takes_no_lock(tmp_path):
    train(tiny(), str(tmp_path))
    (tmp_path / FILE).write_text("{}")
    run.restore(tmp_path)
    assert (tmp_path / FILE).read_text() == "{}"


def test_a_log_whose_checkpoints_are_gone_is_set_aside(tmp_path, capsys):
    train(tiny(), str(tmp_path))
    log = (tmp_path / "metrics.jsonl").read_text()
    (tmp_path / "checkpoints").rename(tmp_path / "elsewhere")
    train(tiny(num_epochs=0.5), str(tmp_path))
    assert "set aside as metrics.1.jsonl" in capsys.readouterr().out
    assert (tmp_path / "metrics.1.jsonl").read_text() == log
