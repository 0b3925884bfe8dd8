"""The log: whole lines, none lost, none twice."""

import errno
import json
import math

import event_files
import pytest

from resnet_jax.errors import UserError
from resnet_jax.training.reporting import logbook
from resnet_jax.training.reporting.logbook import Logbook
from resnet_jax.training.reporting.tensorboard import Board


def line(step, split="train", **more):
    return {"step": step, "epoch": step / 10, "split": split, "loss": 1 / step, **more}


def steps(workdir):
    return [(record["step"], record["split"]) for record in logbook.read(workdir)]


def test_lines_past_the_restored_step_and_half_lines_are_dropped(tmp_path):
    first = Logbook(tmp_path)
    steps_to_2 = line(2, step_ms_p50=1.0)
    for record in (line(1), steps_to_2, line(2, "test"), line(2, "train"), line(3)):
        first.write(record)
    first.close()
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "sp')
    Logbook(tmp_path, step=2, scored=False).close()
    assert steps(tmp_path) == [(1, "train"), (2, "train")]


def test_a_full_disk_costs_no_line(tmp_path, monkeypatch):
    said = []
    book = Logbook(tmp_path, say=said.append)
    book.write(line(1))

    def full(self):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Logbook, "_append", full)
        patch.setattr(Logbook, "_rewrite", full)
        book.write(line(2))
        book.write(line(3))
    assert len(said) == 1
    assert "cannot be written (No space left on device)" in said[0]
    book.write(line(4))
    book.close()
    assert [step for step, _ in steps(tmp_path)] == [1, 2, 3, 4]


def test_tensorboard_reads_the_same_numbers(tmp_path):
    book = Logbook(tmp_path, step=4)
    book.write(line(5, top1=0.25))
    book.close()
    (file,) = tmp_path.glob("events.out.tfevents.*")
    events = list(event_files.read(file))
    scalars = {value.tag: value.simple_value for event in events for value in event.summary.value}
    assert scalars == {"train/loss": pytest.approx(0.2), "train/top1": 0.25}
    assert events[-1].step == 5
    assert [event.step for event in events if event.HasField("session_log")] == [5]


def test_other_processes_write_nothing(tmp_path):
    book = Logbook(tmp_path, silent=True)
    book.write(line(1))
    book.close()
    assert not list(tmp_path.iterdir())


def test_a_board_that_cannot_be_written_is_given_up_and_said_once(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    said = []
    book = Logbook(tmp_path, say=said.append)
    monkeypatch.setattr(Board, "write", full)
    book.write(line(1))
    book.write(line(2))
    book.close()
    assert [step for step, _ in steps(tmp_path)] == [1, 2]
    assert len(said) == 1
    assert "TensorBoard" in said[0]
    assert "No space left" in said[0]


def test_a_log_opens_where_no_board_can(tmp_path, monkeypatch):
    def refused(*_):
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(logbook, "Board", refused)
    book = Logbook(tmp_path, say=lambda _: None)
    book.write(line(1))
    assert steps(tmp_path) == [(1, "train")]


def test_numbers_that_are_none_are_null_and_every_line_is_json(tmp_path):
    def refuse(word):
        raise ValueError(f"{word} is no JSON")

    book = Logbook(tmp_path)
    for number in (math.nan, math.inf, -math.inf):
        book.write(line(1, loss=number, top1=0.5, examples=3))
    book.close()
    for text in (tmp_path / "metrics.jsonl").read_text().splitlines():
        record = json.loads(text, parse_constant=refuse)
        assert record["loss"] is None
        assert (record["top1"], record["examples"]) == (0.5, 3)
    assert all(math.isnan(record["loss"]) for record in logbook.read(tmp_path))


def test_a_run_that_begins_sets_the_log_aside_that_it_finds(tmp_path):
    for number in range(3):
        said = []
        book = Logbook(tmp_path, say=said.append)
        book.write(line(number + 1))
        book.close()
        assert len(said) == (number > 0)
    assert "set aside as metrics.2.jsonl" in said[0]
    assert steps(tmp_path) == [(3, "train")]
    for number in (1, 2):
        text = (tmp_path / f"metrics.{number}.jsonl").read_text()
        assert json.loads(text)["step"] == number


def test_a_run_that_goes_on_before_its_first_line_sets_nothing_aside(tmp_path):
    Logbook(tmp_path).write(line(10))
    Logbook(tmp_path, step=5).close()
    assert steps(tmp_path) == []
    assert not (tmp_path / "metrics.1.jsonl").exists()


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\x00\n",
        b"[]\n",
        b"{}\n",
        b"null\n5\n",
        b'{"step": "1", "split": 2}\n',
        b"[" * 9999 + b"\n",
    ],
    ids=range(6),
)
def test_lines_that_are_not_of_a_log_are_left_out(tmp_path, content):
    good = json.dumps(line(1)).encode() + b"\n"
    (tmp_path / "metrics.jsonl").write_bytes(good + content + good)
    Logbook(tmp_path, step=2).close()
    assert steps(tmp_path) == [(1, "train"), (1, "train")]


def test_a_log_that_cannot_be_read_is_an_error_in_a_line(tmp_path):
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(UserError, match=r"metrics\.jsonl cannot be read"):
        Logbook(tmp_path)
