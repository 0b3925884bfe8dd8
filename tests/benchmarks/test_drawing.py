"""Curves of many runs as one picture."""

from benchmarks import drawing


def run(*scores):
    return [
        {"epoch": float(number), "train_top1": 0.5, "eval_top1": score}
        for number, score in enumerate(scores, 1)
    ]


def test_the_same_runs_give_the_same_picture(tmp_path):
    pictures = []
    for _ in range(2):
        runs = {"net": [run(0.2, 0.4), run(0.3, 0.5)]}
        drawing.draw(runs, tmp_path / "a.svg", {"level": 0.45})
        pictures.append((tmp_path / "a.svg").read_text())
    assert pictures[0] == pictures[1]
    assert "net (n = 2)" in pictures[0]
    assert "level" in pictures[0]
