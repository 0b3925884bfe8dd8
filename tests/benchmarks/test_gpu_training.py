"""The GPU contest plays to its end, in its small form on the CPU, whatever becomes of single
contestants.
"""

import importlib.util
import json
from typing import ClassVar

import pytest

from benchmarks import gpu_page, gpu_training
from benchmarks.contest import Failure
from benchmarks.gpu_contestants import OUR_MODULE, VARIANTS
from benchmarks.gpu_training import Clock, play
from benchmarks.worker import Contestant, Problem, Worker

SMALL = [
    "--device=cpu",
    "--networks",
    "resnet18",
    "--side=32",
    "--batch",
    "8",
    "--rounds=2",
    "--seconds=0.1",
]
PROBLEM = Problem("resnet50", 8, 32, "float32", "cpu", 10)


def test_the_small_form_reports_every_contestant_and_every_failure(tmp_path, monkeypatch, capsys):
    broken = Contestant(OUR_MODULE, xla_flags="--xla_no_such_flag=1", note="does not start")
    monkeypatch.setattr(gpu_training, "EVERYONE", gpu_training.EVERYONE | {"no-triton": broken})
    has_torch = importlib.util.find_spec("torch") is not None
    names = ["ours", "no-triton", "flax", *(["torch-eager"] if has_torch else [])]
    gpu_training.main(
        [*SMALL, "--dtype=float32", "--contestants", *names, "--output", str(tmp_path)]
    )
    (match,) = json.loads((tmp_path / "gpu_training.json").read_text())["cpu"]["matches"]
    assert [sorted(each) for each in match["rounds"]] == 2 * [sorted({*names} - {"no-triton"})]
    assert list(match["errors"]) == ["no-triton"]
    assert "xla_no_such_flag" in match["errors"]["no-triton"]
    assert all(6 < ready["loss"] < 9 for ready in match["ready"].values())  # about log(1000)
    assert match["breakdown"]["categories"]["convolutions and matmuls"] > 0
    page = (tmp_path / "gpu_training.md").read_text()
    assert page.count("| resnet18, 32, float32 | 8 |") == len(names)
    assert "Not yet measured" not in page
    assert "xla_no_such_flag" in capsys.readouterr().out


def test_a_worker_says_why_it_failed():
    contestant = Contestant(OUR_MODULE, {"variant": "no such"})
    with pytest.raises(Failure, match="KeyError: 'no such'"):
        Worker(contestant, PROBLEM, 60)


class Fake:
    """A worker of a device that has room for two contestants at a time, at a fixed speed."""

    alive = 0
    seconds: ClassVar = {"ours": 1.0, "slow": 2.0, "third": 4.0}

    def __init__(self, contestant, problem, seconds):
        if Fake.alive == 2:
            raise Failure("RESOURCE_EXHAUSTED: Out of memory while trying to allocate")
        Fake.alive += 1
        self.name = contestant.note
        self.ready = {"device": "NVIDIA H200", "first_step_seconds": 5.0}

    def turn(self, seconds, limit):
        return self.seconds[self.name]

    def ask(self, request, limit):
        if request["verb"] == "memory":
            return {"peak_bytes": 3 * 2**30}
        return {
            "categories": {"convolutions": 0.5},
            "kernels": [["conv.1", "convolutions", 0.5]],
            "span": 1.0,
        }

    def close(self):
        Fake.alive -= 1


@pytest.fixture
def fakes(monkeypatch):
    monkeypatch.setattr(gpu_training, "Worker", Fake)
    return {name: Contestant("fake", note=name) for name in Fake.seconds}


def test_who_has_no_memory_beside_the_others_plays_apart(fakes):
    match = play(PROBLEM, fakes, rounds=3, seconds=1.0, clock=Clock(1e6))
    assert match["rounds"] == 3 * [{"ours": 1.0, "slow": 2.0}]
    assert match["apart"] == {"third": 3 * [{"ours": 1.0, "third": 4.0}]}
    assert match["errors"] == {}
    assert set(match["ready"]) == set(match["peak_bytes"]) == set(fakes)
    assert Fake.alive == 0


def test_a_failure_in_a_turn_leaves_the_others_their_rounds(fakes, monkeypatch):
    turns = []

    def turn(self, seconds, limit):
        turns.append(self.name)
        if self.name == "slow" and turns.count("slow") == 2:
            raise Failure("CUDA error")
        return Fake.seconds[self.name]

    monkeypatch.setattr(Fake, "turn", turn)
    del fakes["third"]
    match = play(PROBLEM, fakes, rounds=3, seconds=1.0, clock=Clock(1e6))
    assert match["rounds"] == [{"ours": 1.0, "slow": 2.0}, {"ours": 1.0}, {"ours": 1.0}]
    assert match["errors"] == {"slow": "CUDA error"}


def test_a_match_that_would_not_end_in_time_is_left_out(fakes, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        Clock, "spent", lambda self, seconds, contestants: setattr(self, "_dearest", 1e6)
    )
    monkeypatch.setattr(gpu_training, "EVERYONE", {"ours": fakes["ours"], "torch": fakes["slow"]})
    command = [
        "--device=cpu",
        "--minutes=5",
        "--contestants",
        "ours",
        "torch",
        "--output",
        str(tmp_path),
    ]
    gpu_training.main(command)
    (match,) = json.loads((tmp_path / "gpu_training.json").read_text())["NVIDIA H200"]["matches"]
    assert (match["problem"]["network"], match["problem"]["batch"]) == ("resnet50", 256)
    assert "left out, as the time is nearly up: resnet50, batch 512" in capsys.readouterr().out


def test_the_page_holds_ours_against_the_bound_and_torch(fakes, tmp_path, monkeypatch):
    monkeypatch.setattr(Fake, "seconds", {"ours": 0.04, "slow": 0.05})
    monkeypatch.setattr(gpu_training, "EVERYONE", {"ours": fakes["ours"], "torch": fakes["slow"]})
    command = ["--device=cpu", "--networks", "resnet50", "--contestants", "ours", "torch"]
    gpu_training.main([*command, "--batch", "256", "--output", str(tmp_path)])
    gpu_training.main([*command, "--batch", "128", "--output", str(tmp_path)])
    page = (tmp_path / "gpu_training.md").read_text()
    assert (
        "| resnet50, 224, bfloat16 | ours | 256 | 6,400.0 | – | 47.8% (43% wanted, 60% aimed at) |"
        in page
    )
    assert (
        "| resnet50, 224, bfloat16 | torch | 256 | 5,120.0 | 1.25 (at least 1.2 wanted) | 38.2% |"
        in page
    )
    assert "| 128 | ours | 3,200.0 (3,200.0 to 3,200.0) | – | 23.9% | 3.0 | 5.0 |" in page


def test_a_match_that_is_played_again_takes_its_old_place(fakes, tmp_path, monkeypatch):
    monkeypatch.setattr(
        gpu_training, "EVERYONE", dict.fromkeys(gpu_training.EVERYONE, fakes["ours"])
    )
    command = [
        "--device=cpu",
        "--networks",
        "resnet50",
        "--contestants",
        "ours",
        "--output",
        str(tmp_path),
    ]
    gpu_training.main([*command, "--batch", "64", "128"])
    gpu_training.main([*command, "--batch", "64", "--rounds=1"])
    matches = json.loads((tmp_path / "gpu_training.json").read_text())["NVIDIA H200"]["matches"]
    assert [(match["problem"]["batch"], len(match["rounds"])) for match in matches] == [
        (64, 1),
        (128, 7),
    ]


def test_variants_play_beside_ours(fakes, tmp_path, monkeypatch):
    monkeypatch.setattr(
        gpu_training, "EVERYONE", dict.fromkeys(gpu_training.EVERYONE, fakes["ours"])
    )
    monkeypatch.setattr(Fake, "alive", -2)
    gpu_training.main(["--device=cpu", "--variants", "--output", str(tmp_path)])
    matches = json.loads((tmp_path / "gpu_training.json").read_text())["NVIDIA H200"]["matches"]
    assert [name for match in matches for name in match["contestants"] if name != "ours"] == list(
        VARIANTS
    )
    assert all(match["contestants"][0] == "ours" for match in matches)
    assert "### Variants of ours" in (tmp_path / "gpu_training.md").read_text()


def test_without_a_gpu_the_page_says_so_and_figures_stay(tmp_path, monkeypatch):
    monkeypatch.setattr(gpu_training, "find_gpu", lambda: None)
    gpu_training.main(["--output", str(tmp_path)])
    page = (tmp_path / "gpu_training.md").read_text()
    assert "Not yet measured" in page
    assert gpu_page.COMMAND in page
    assert "| NVIDIA H100 80GB HBM3 | resnet50 | 9,3" in page
    assert not (tmp_path / "gpu_training.json").exists()

    record = {
        "NVIDIA H200": {
            "machine": {"gpu": "H200", "cpu": "", "cores": 1, "versions": {}},
            "matches": [],
        }
    }
    (tmp_path / "gpu_training.json").write_text(json.dumps(record))
    gpu_training.main(["--pending", "--output", str(tmp_path)])
    assert "## NVIDIA H200" in (tmp_path / "gpu_training.md").read_text()


def test_the_bounds_are_those_of_the_roofline():
    assert gpu_page.bound("NVIDIA H200", "resnet50") == pytest.approx(13_380, rel=0.01)
    assert gpu_page.bound("NVIDIA H200", "resnet50", dtype="float32") == pytest.approx(
        6_690, rel=0.01
    )
    assert gpu_page.bound("cpu", "resnet50") is None
