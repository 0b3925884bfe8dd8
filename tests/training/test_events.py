"""Event files as another implementation reads them."""

import struct

import pytest
from tensorboardX.crc32c import _crc32c as crc32c
from tensorboardX.proto.event_pb2 import Event, SessionLog

from resnet_jax.training.events import Board


def unmasked(crc):
    rotated = (crc - 0xA282EAD8) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF


def records(path):
    """Yields the events of a TFRecord file, their checksums compared: length, its sum, the bytes, their sum."""
    content = path.read_bytes()
    while content:
        length, head = struct.unpack("<QI", content[:12])
        data, (body,) = content[12 : 12 + length], struct.unpack("<I", content[12 + length : 16 + length])
        assert (crc32c(content[:8]), crc32c(data)) == (unmasked(head), unmasked(body))
        yield Event.FromString(data)
        content = content[16 + length :]


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
    version, start, *events = records(path)
    assert version.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (1, SessionLog.START)
    read = [
        (event.step, {value.tag: value.simple_value for value in event.summary.value}) for event in events
    ]
    assert read[0] == (5, {"train/loss": 2.5, "train/examples": 640})
    assert read[1] == (3_000_000_000, {"test/top1": -0.25, "test/" + "ü" * 100: pytest.approx(1e-30)})
    assert all(0 <= late.wall_time - start.wall_time < 60 for late in events)


def test_a_line_is_on_the_disk_when_write_returns(tmp_path):
    board = Board(str(tmp_path), 1)
    (path,) = tmp_path.iterdir()
    assert len(list(records(path))) == 2
    board.write({"step": 1, "split": "train", "loss": 1.0})
    assert len(list(records(path))) == 3
    board.close()
