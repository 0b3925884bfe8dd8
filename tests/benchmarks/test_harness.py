"""Turns, processes and pages, which all measurements share."""

import json
import sys
import time

import pytest

from benchmarks import pages
from benchmarks.harness import ROOT, Failure, Worker, alternate, ratio, speed


def test_contestants_take_turns_and_who_fails_is_left_out():
    taken = []

    def turn(name, fails_at=None):
        taken.append(name)
        if taken.count(name) == fails_at:
            raise Failure("no more")
        return {"slow": 4.0, "fast": 1.0 + taken.count(name)}[name]

    turns = {"fast": lambda: turn("fast"), "slow": lambda: turn("slow", 3)}
    rounds, left = alternate(turns, 4)
    assert taken == ["fast", "slow"] * 3 + ["fast"]
    assert left == {"slow": "no more"}
    assert ratio(rounds, "fast", "slow") == pytest.approx((5 / 3, 4 / 3, 2))
    assert speed(rounds, "fast", 60.0) == (17.5, 12.0, 30.0)
    assert ratio(rounds, "fast", "nobody") is None
    assert len(alternate(turns, 4, deadline=time.monotonic())[0]) == 1


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("print('{}', flush=True); import nothing_of_that_name", "exit status 1: ModuleNotFound"),
        ('print(\'{"error": "broken"}\', flush=True); input()', "^broken$"),
        ("import time; time.sleep(60)", "no answer within 1 s"),
    ],
)
def test_a_process_that_does_not_answer_says_why(script, reason):
    with pytest.raises(Failure, match=reason):
        Worker([sys.executable, "-c", script], {}, 30 if "sleep" not in script else 1)


def test_a_process_answers_requests():
    script = "import os, sys\nprint('{\"a\": 1}', flush=True)\nfor line in sys.stdin: print(line)"
    worker = Worker([sys.executable, "-uc", script], {}, 30)
    assert worker.ready == {"a": 1}
    assert worker.ask(30, verb="turn") == {"verb": "turn"}
    worker.close()


def test_a_table_has_text_numbers_and_ranges():
    rows = [
        {"name": "a|b", "x": 12345, "empty": None},
        {"name": "c", "x": 0.1234, "y": [1.5, 1.0, 2345.6]},
    ]
    assert pages.table(rows) == [
        "| name | x | y |",
        "| --- | --- | --- |",
        "| a/b | 12,345 |  |",
        "| c | 0.123 | 1.50 (1.00 to 2,346) |",
    ]


def test_a_command_names_no_place_of_the_machine():
    words = ["/home/me/launch.py", "--config=/home/me/configs/best.py", "--config.data.name", "idx"]
    words += [
        "--config.data.dir=/data",
        "--config.data.train_split=train[:50%]",
        "--workdir=/runs/1",
    ]
    assert pages.command_line(words) == (
        "python launch.py --config=configs/best.py --config.data.name=idx --config.data.dir=DIR"
        " '--config.data.train_split=train[:50%]'"
    )
    words = ["/home/me/benchmarks/input.py", "--rounds=3", "--output", "/tmp/x"]
    assert pages.command_line(words) == "python -m benchmarks.input --rounds=3"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "results").glob("*.json")), ids=lambda path: path.stem
)
def test_a_kept_page_is_what_its_record_makes(path):
    assert path.with_suffix(".md").read_text() == pages.page(json.loads(path.read_text()))


def test_a_record_is_kept_with_its_page(tmp_path, capsys):
    result = pages.record("name", "Title", "about", "jax") | {"tables": {"Speeds": [{"x": 1 / 3}]}}
    pages.save(result, tmp_path)
    kept = json.loads((tmp_path / "name.json").read_text())
    assert kept["tables"] == {"Speeds": [{"x": 0.333333}]}
    assert (tmp_path / "name.md").read_text() == pages.page(kept)
    assert "## Speeds" in capsys.readouterr().out
