"""The studies of depth, shortcuts, versions and first scales: resumable, and a page from logs."""

import dataclasses

import fabricate
import jax
import numpy as np
import pytest

from benchmarks import degradation, harness
from benchmarks.fashion_mnist import Log, read_kept, write
from resnet_jax import config as config_lib

matplotlib = pytest.importorskip("matplotlib")
FORM = degradation.FORMS["fashion_mnist"]


def test_every_variant_is_a_recipe_and_has_the_layers_that_it_is_named_after():
    for form in degradation.FORMS.values():
        for study, variants in degradation.STUDIES.items():
            for name, fields in variants(form).items():
                config = degradation.recipe(form.fields | fields, "DIR", seed=1)
                blocks, per_block = sum(config.model.stage_sizes), 3 if study == "versions" else 2
                depth = int(name.strip("plainresdu")) if study == "depth" else form.depth
                assert blocks * per_block + 2 == depth


@pytest.mark.parametrize("study", degradation.STUDIES)
def test_the_smallest_variants_differ_and_give_logits(study):
    form = dataclasses.replace(FORM, depths=(8,), depth=11 if study == "versions" else 8)
    made = set()
    for fields in degradation.STUDIES[study](form).values():
        model = config_lib.build_model(degradation.recipe(form.fields | fields, "DIR", seed=0))
        images = jax.ShapeDtypeStruct((2, 14, 14, 1), np.float32)
        logits, _ = jax.eval_shape(model.init_with_output, jax.random.key(0), images)
        assert logits.shape == (2, 10)
        made.add(model)
    assert len(made) == len(degradation.STUDIES[study](form))


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """The command's flags for a study of one net of one block, seed 0, on fabricated images."""
    fabricate.idx_directory(tmp_path / "data", train=256, test=24, size=8)
    net = {"model.stage_sizes": (1,), "model.width": 2}
    monkeypatch.setattr(degradation, "GRADIENT_BATCHES", 1)
    monkeypatch.setitem(degradation.STUDIES, "depth", lambda form: {"residual8": net})
    form = degradation.Form({"data.name": "idx", "num_epochs": 1.0}, depths=(8,), depth=8)
    monkeypatch.setitem(degradation.FORMS, "fashion_mnist", form)
    flags = {"data": tmp_path / "data", "work": tmp_path / "work", "output": tmp_path}
    return ["--seeds=0", *(f"--{name}={path}" for name, path in flags.items())]


def test_a_finished_run_leaves_a_log_with_its_gradients_and_is_not_run_again(
    tiny, tmp_path, monkeypatch
):
    assert degradation.main(tiny) == 0
    log = tmp_path / "degradation" / "fashion_mnist" / "depth" / "residual8" / "seed0.jsonl"
    ((kept,),) = read_kept(log.parents[1]).values()
    assert kept.epochs[-1]["step"] == 2
    assert list(kept.header["gradients"]) == ["start", "start without normalisation", "end"]
    for norms in kept.header["gradients"].values():
        assert list(norms) == ["conv1", "layer1_0.conv1", "layer1_0.conv2", "fc"]
        assert all(np.isfinite(norm) and norm > 0 for norm in norms.values())
    start, bare, end = kept.header["gradients"].values()
    assert start != bare != end != start
    page = (tmp_path / "degradation.md").read_text()

    def refuse(*_):
        pytest.fail("it is kept already")

    monkeypatch.setattr(degradation, "train", refuse)
    assert degradation.main(tiny) == 0
    assert (tmp_path / "degradation.md").read_text() == page


def fabricated(name, seed, train, test):
    """A run of 100 steps of one epoch with these final scores."""
    norms = {"conv1": 1.0 + seed, "layer1_0.conv1": 0.25, "fc": 9.0}
    gradients = {"start": norms, "start without normalisation": norms, "end": norms}
    header = {"name": name, "seed": seed, "parameters": 5, "batch_size": 128, "cores": 1}
    header |= {"train_images": 1000, "num_epochs": 1.0, "date": "2020-01-02T00"}
    header |= {"versions": {"jax": "1"}, "devices": "1 × CPU"}
    line = {"step": 100, "epoch": 1.0, "steady_seconds": 12.8, "train_top1": train}
    return Log(header | {"gradients": gradients}, [line | {"eval_top1": test}])


def test_the_page_says_with_how_many_seeds_the_deepest_is_worse(tmp_path, capsys):
    folder = tmp_path / "degradation" / "fashion_mnist" / "depth"
    flags = [f"--output={tmp_path}"]
    assert degradation.main(flags) == 1
    assert "--data=DIR" in capsys.readouterr().err
    for seed, train in enumerate((0.75, 0.5)):
        write(fabricated("plain8", seed, 0.75, 0.5), folder)
        write(fabricated("plain32", seed, train, 0.25), folder)
        write(fabricated("residual8", seed, 0.75, 0.75), folder)
    assert degradation.main(flags) == 0
    page = (tmp_path / "degradation.md").read_text()
    assert "| plain32 | 5 | 1,000 | 1 | 37.50 ± 17.68 | 75.00 ± 0.00 | 2 | 1,000 |" in page
    assert "| plain8 | 1.50 | 0.875 (0.250 to 1.50) |" in page
    assert (
        "Training error of the plain net, from 8 to 32 layers: 25.00 % to 37.50 %, higher" in page
    )
    assert "with 1 of 2 seeds" in page
    assert "although" not in page
    assert "Plain less residual, test error in points: +25.00 at 8 layers." in page
    assert "Test error of the residual net" not in page


def test_the_kept_page_is_what_the_kept_logs_make(tmp_path):
    results = harness.ROOT / "results"
    (tmp_path / "degradation").symlink_to(results / "degradation")
    assert degradation.main([f"--output={tmp_path}"]) == 0
    assert (tmp_path / "degradation.md").read_text() == (results / "degradation.md").read_text()
    made, kept = ((place / "degradation.svg").read_text() for place in (tmp_path, results))
    # Another version of matplotlib may draw the same curves by other strokes.
    if f"Matplotlib v{matplotlib.__version__}," in kept:
        assert made == kept
