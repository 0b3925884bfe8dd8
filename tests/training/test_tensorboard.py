"""Event files as another implementation reads them."""

import math

import event_files
import pytest
from tensorboardX.proto.event_pb2 import SessionLog

from resnet_jax.training.reporting.tensorboard import Board


def test_every_number_arrives_with_its_name_and_step(tmp_path):
    board = Board(str(tmp_path), 1)
    lines = [
        {"step": 5, "epoch": 0.5, "split": "train", "loss": 2.5, "examples": 640},
        {"step": 3_000_000_000, "epoch": 1.0, "split": "test", "top1": -0.25, "ü" * 100: 1e-30},
    ]
    for line in lines:
        board.write(line)
    board.close()
    (path,) = tmp_path.glob("events.out.tfevents.*")
    version, start, *events = event_files.read(path)
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (1, SessionLog.START)
    read = [
        (event.step, {value.tag: value.simple_value for value in event.summary.value})
        for event in events
    ]
    assert read[0] == (5, {"train/loss": 2.5, "train/examples": 640})
    assert read[1] == (
        3_000_000_000,
        {"test/top1": -0.25, "test/" + "ü" * 100: pytest.approx(1e-30)},
    )
    assert all(0 <= late.wall_time - start.wall_time < 60 for late in events)


def test_a_number_beyond_float32_is_infinite(tmp_path):
    board = Board(str(tmp_path), 1)
    (path,) = tmp_path.iterdir()
    board.write({"step": 1, "split": "train", "loss": 1e300, "low": -1e300})
    board.close()
    *_, event = event_files.read(path)
    assert [value.simple_value for value in event.summary.value] == [math.inf, -math.inf]


def test_a_line_is_on_the_disk_when_write_returns(tmp_path):
    board = Board(str(tmp_path), 1)
    (path,) = tmp_path.iterdir()
    assert len(list(event_files.read(path))) == 2
    board.write({"step": 1, "split": "train", "loss": 1.0})
    assert len(list(event_files.read(path))) == 3
    board.close()
