"""The contest of input pipelines, on a few files; no speed is asserted."""

import argparse

from benchmarks import input_pipeline


def test_the_rounds_are_taken_in_turn_and_the_first_does_not_count():
    taken = []

    def contender(name):
        return lambda images: taken.append((name, images))

    rates, work = input_pipeline.rounds(
        {name: contender(name) for name in ("slow", "fast")}, images=128, count=2
    )
    assert taken == 3 * [("slow", 128), ("fast", 128)]
    assert [len(found) for found in rates.values()] == [2, 2]
    assert input_pipeline.times([6.0, 8.0, 3.0], [2.0, 2.0, 2.0]) == (3.0, 1.5, 4.0)
    assert set(work) == {"slow", "fast"}


def test_a_peer_in_a_process_of_its_own_tells_its_own_seconds():
    rates, work = input_pipeline.rounds(
        {"elsewhere": lambda images: (2.0, 0.5)}, images=100, count=1
    )
    assert (rates, work) == ({"elsewhere": [50.0]}, {"elsewhere": 5.0})


def test_ours_decodes_the_photographs_and_the_table_has_a_row_for_each(tmp_path):
    paths = input_pipeline.photographs(tmp_path, 70)
    tree = {"name": "folder", "dir": str(tmp_path / "tree")}
    contenders = {
        "Pillow": input_pipeline.input_peers.pillow(paths, 1),
        "resnet_jax, files": input_pipeline.ours(2, **tree),
        "resnet_jax, files, 1 thread": input_pipeline.ours(1, **tree),
    }
    measured = input_pipeline.rounds(contenders, images=64, count=1)
    arguments = argparse.Namespace(threads=2, files=70, images=64, rounds=1)
    page = input_pipeline.table(*measured, arguments, input_pipeline.machine())
    rows = [
        line.split(" | ")
        for line in page.splitlines()
        if line.startswith(("| Pillow", "| resnet_jax"))
    ]
    assert [row[0].strip("| ") for row in rows] == list(contenders)
    assert rows[0][3] == "1.00 (1.00 to 1.00)"
