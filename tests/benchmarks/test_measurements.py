"""Convolutions, input and start, measured on the smallest problems; no speed is asserted."""

from functools import partial

import numpy as np
import pytest

from benchmarks import input as input_benchmark
from benchmarks import startup
from benchmarks.train_step import Problem


def test_the_three_operations_of_every_contestant_are_the_same():
    pytest.importorskip("torch")
    from benchmarks import convolution

    rng = np.random.default_rng(0)
    shapes = ((2, 5, 5, 3), (3, 3, 3, 4), (2, 3, 3, 4))
    arrays = [rng.standard_normal(shape, np.float32) for shape in shapes]
    keywords = {"strides": (2, 2), "padding": ((1, 1), (1, 1))}
    ours, stock = (
        convolution.jax_calls(partial(function, **keywords), *arrays)
        for function in (convolution.conv2d, convolution.stock)
    )
    peers = convolution.torch_calls(*arrays, stride=2, pad=1)
    output, (by_image, *_), (_, by_kernel, _) = (call() for call in peers.values())
    peers = output.permute(0, 2, 3, 1), by_image.permute(0, 2, 3, 1), by_kernel.permute(2, 3, 1, 0)
    for name, third in zip(ours, peers, strict=True):
        np.testing.assert_allclose(ours[name](), third, atol=1e-4)
        np.testing.assert_allclose(stock[name](), third, atol=1e-4)
    row = convolution.row(2, (5, 3, 4, 3, 2), rounds=1)
    assert row["kernel"] == 3
    assert row["output, ours / XLA / PyTorch"].count(" / ") == 2


def test_the_contest_has_every_convolution_of_a_network():
    pytest.importorskip("torch")
    from benchmarks import convolution

    shapes = convolution.shapes(Problem("resnet50", 16))
    assert len(shapes) == len(set(shapes)) == 23
    assert shapes[:2] == [(224, 3, 64, 7, 2), (56, 64, 64, 1, 1)]
    assert (14, 1024, 2048, 1, 2) in shapes


def test_every_pipeline_decodes_the_photographs(tmp_path, monkeypatch):
    monkeypatch.setattr(input_benchmark, "FILES", 70)
    monkeypatch.setattr(input_benchmark.peers, "grain", lambda *fields: lambda images: None)
    runs = input_benchmark.contestants(tmp_path, threads=2)
    runs |= {"tf.data": lambda images: {"seconds": 2.0, "work": 0.5}}
    rows = input_benchmark.measure(runs, images=64, rounds=1)
    assert [row["pipeline"] for row in rows] == list(runs)
    assert rows[0]["times Pillow"] == (1, 1, 1)
    assert rows[-1]["images/s"] == (32, 32, 32)
    assert rows[-1]["processor ms an image"] == 500 / 64
    monkeypatch.setattr(input_benchmark, "METHODS", [("x", 32, {"repeats": 2})])
    plain, repeated = input_benchmark.method_rows(tmp_path / "tree", 2, images=64, rounds=1)
    assert plain["times plain"] == (1, 1, 1)
    assert repeated["pipeline"] == "x, 32"
    row = input_benchmark.memory_row((8, 8, 1), 400, 8, rounds=1)
    assert row["images"] == "400 of 8x8x1, batch 8"


def test_a_folder_tree_is_made_and_opened(tmp_path):
    row = input_benchmark.tree_row(tmp_path, 3, 5, rounds=1)
    assert row["tree"] == "15 files in 3 folders"
    assert row["opened, with fingerprint (s)"].median > 0
    assert len(list(tmp_path.glob("train/*/*.JPEG"))) == 15


def test_only_a_first_start_compiles(monkeypatch):
    monkeypatch.setattr(startup, "IMPORTS", {"import json": ["-c", "import json"]})
    flags = ("--config.model.width=4", "--config.model.stage_sizes=1,", "--config.num_epochs=3")
    first, resumed, other, imported = startup.start_rows(1, *flags)
    assert first["programs compiled"] > 0
    assert resumed["programs compiled"] == other["programs compiled"] == 0
    assert imported["start"] == "`import json`"


def test_predicting_files_is_timed_beside_bare_inference(tmp_path):
    fields = {"model.width": 4, "model.stage_sizes": (1,)}
    row = startup.predict_row(tmp_path, "a net", fields, files=70, rounds=1)
    assert row["files"] == "70 PNG of 28x28, a net"
    assert row["bare (s)"].median > 0
    assert row["predicted / bare"].median > 0


def test_the_loop_is_timed_beside_bare_steps():
    fields = {"model.width": 4, "model.stage_sizes": (1,)}
    (played,) = startup.play(fields, rounds=1, epochs=2)
    assert min(played[name] for name in played if name != "saving") > 0
    assert played["plain"] > 22 * played["training"]
    row = startup.loop_row("training", "tiny", [played])
    assert row["loop / bare"].median == played["training"] / played["bare training"]
