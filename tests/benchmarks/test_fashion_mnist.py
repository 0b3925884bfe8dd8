"""The page of Fashion-MNIST is made from what runs leave behind, ours and PyTorch's."""

import json
import shutil
import subprocess
import sys

import fabricate
import jax
import pytest

from benchmarks import fashion_mnist, harness
from resnet_jax import config as config_lib
from resnet_jax import run
from resnet_jax.commands.evaluate import evaluate
from resnet_jax.commands.train import train
from resnet_jax.distributed.mesh import shard_batch
from resnet_jax.errors import UserError
from resnet_jax.experiment import Experiment
from resnet_jax.scoring import How

pytest.importorskip("matplotlib")
COMMAND = ["/clone/launch.py", "--config=/clone/configs/resnet18_fashion_mnist.py"]
COMMAND += ["--config.data.name=idx", "--config.data.dir=/data", "--config.model.width=4"]


def changed(config, **fields):
    for name, value in fields.items():
        config_lib.set_field(config, name.replace("__", "."), value)
    return config


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of a small net on fabricated images, started by `COMMAND`."""
    root = tmp_path_factory.mktemp("fashion")
    fabricate.idx_directory(root / "data", train=80, test=24)
    net = {"model__stage_sizes": (1,), "model__width": 4, "model__stem": "small"}
    config = changed(
        harness.load_recipe("resnet18_fashion_mnist"),
        **net
        | {"batch_size": 16, "num_epochs": 2, "data__name": "idx", "data__dir": f"{root}/data"},
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", COMMAND)
        train(config, str(root / "sweep" / "seed=0"))
    return root / "sweep" / "seed=0"


def test_a_finished_run_is_kept_and_an_unfinished_one_is_not(workdir, tmp_path):
    header, epochs = fashion_mnist.read_run(workdir)
    assert header["name"] == "resnet18_fashion_mnist,model.width=4"
    assert (header["train_images"], header["test_images"]) == (80, 24)
    assert header["parameters"] == 36 + 8 + 2 * (144 + 8) + 50
    assert "/data" not in header["command"]
    assert [line["epoch"] for line in epochs] == [1, 2]
    for file in workdir.glob("*.*"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    lines = (workdir / "metrics.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_text("".join(lines[:-1]))
    assert fashion_mnist.read_run(tmp_path) is None


def test_a_net_that_was_trained_on_mirrored_images_is_scored_with_them_too(
    workdir, tmp_path, capsys
):
    evaluate(str(workdir), which="last", how=How(mirror=True))
    said = json.loads(capsys.readouterr().out.splitlines()[-1])
    header, _ = fashion_mnist.read_run(workdir)
    assert header["mirrored_top1"] == pytest.approx(said["top1"], abs=1e-5)
    shutil.copytree(workdir, tmp_path / "run")
    recipe = changed(run.read_config(workdir), data__flip=False)
    (tmp_path / "run" / "config.json").write_text(config_lib.to_json(recipe))
    assert "mirrored_top1" not in fashion_mnist.read_run(tmp_path / "run").header


def fabricated(seed, scores, **header):
    """A run of 10 steps of 100 images an epoch, 5 s each epoch, with these test scores."""
    facts = {"name": "recipe", "net": "net", "seed": seed, "parameters": 1, "train_images": 1000}
    facts |= {"num_epochs": 3.0, "batch_size": 100, "cores": 2, "date": "2020-01-02T00"}
    facts |= {"versions": {"jax": "1"}, "command": "python x", "commit": "123456789+"} | header
    lines = [
        {"step": 10 * n, "epoch": float(n), "seconds": 5.0 * n, "steady_seconds": 4.0 * n}
        | {"train_loss": 1.0, "train_top1": 0.5, "eval_loss": 1.0, "eval_top1": top1}
        for n, top1 in enumerate(scores, 1)
    ]
    return fashion_mnist.Log(facts, lines)


def test_the_page_has_scores_and_times_beside_pytorch(tmp_path):
    for seed, scores in enumerate(([0.91, 0.93, 0.95], [0.90, 0.92, 0.93])):
        mirrored = fabricated(seed, scores, mirrored_top1=scores[-1] + 0.01)
        fashion_mnist.write(mirrored, tmp_path / "fashion_mnist")
    facts = {"versions": {"torch": "2.0"}, "command": "python y"}
    peer = fabricated(0, [0.90, 0.91, 0.93], **facts)
    fashion_mnist.write(peer, tmp_path / "fashion_mnist", "torch_")
    fashion_mnist.write_page(tmp_path)
    page = (tmp_path / "fashion_mnist.md").read_text()
    assert (
        "| recipe | net | 1 | 1,000 | 3 | 0.9400 ± 0.0141 | 0.9500 ± 0.0141 | 2 | 15.0 | 5.00 | 4.00 |"
        in page
    )
    ours = "| 10 | 15 (1 of 2) | 2 | 0.9400 ± 0.0141 | 15.0 | 5 to 5 | 200 |"
    assert f"| recipe | JAX (this project) {ours}" in page
    assert "| recipe | PyTorch 2.0 | 15 | not reached | 1 | 0.9300 |" in page
    assert "| `python x` | 2020-01-02, jax 1 | 2 | 1234567+ |" in page


def test_runs_that_are_not_scored_on_the_test_images_stand_apart_as_gains(tmp_path):
    runs = {"recipe": (0.75, 0.5), "small": (0.25, 0.5), "small,data.mixup=0.2": (0.5, 1.0)}
    for name, scores in runs.items():
        facts = {} if name == "recipe" else {"scored_on": "train[48000:]"}
        for seed, score in enumerate(scores):
            log = fabricated(seed, [score], name=name, **facts)
            fashion_mnist.write(log, tmp_path / "fashion_mnist")
    fashion_mnist.write_page(tmp_path)
    page = (tmp_path / "fashion_mnist.md").read_text()
    assert page.partition("## Seconds")[0].count("small") == 0
    assert "| small | as it is | 2 | 0.3750 ± 0.1768 |" in page
    assert "| small | data.mixup=0.2 | 2 | 0.7500 ± 0.3536 | 0.3750 ± 0.1768 |" in page
    assert "small" not in (tmp_path / "fashion_mnist.svg").read_text()


def test_the_command_keeps_runs_and_says_what_is_missing(workdir, tmp_path, monkeypatch, capsys):
    command = ["fashion_mnist", f"--output={tmp_path}"]
    monkeypatch.setattr(sys, "argv", command)
    assert fashion_mnist.main() == 1
    assert "--runs" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", [*command, "--runs", str(workdir.parent)])
    assert fashion_mnist.main() == 0
    assert [path.name for path in tmp_path.glob("fashion_mnist/*/*")] == ["seed0.jsonl"]


def test_the_kept_page_is_what_the_kept_logs_make(tmp_path):
    results = harness.ROOT / "results"
    (tmp_path / "fashion_mnist").symlink_to(results / "fashion_mnist")
    fashion_mnist.write_page(tmp_path)
    assert (tmp_path / "fashion_mnist.md").read_text() == (results / "fashion_mnist.md").read_text()


def tiny(**fields):
    net = {"name": "resnet18", "stage_sizes": (1,), "width": 8, "stem": "small", "zero_init": False}
    changes = {f"model__{name}": value for name, value in net.items()}
    changes |= {"batch_size": 32, "num_epochs": 2.5, "data__name": "digits"}
    changes |= {"optimizer__nesterov": True, "optimizer__weight_decay": 0.05}
    changes |= {"loss__label_smoothing": 0.1, "schedule__name": "cosine", "schedule__base_lr": 0.4}
    return Experiment.for_training(changed(config_lib.defaults(), **changes | fields))


def test_two_steps_in_pytorch_give_our_parameters_and_statistics():
    torch = pytest.importorskip("torch")
    from benchmarks.peers import pytorch, pytorch_recipe

    experiment = tiny()
    trainer, state = pytorch_recipe.Trainer(experiment), experiment.create_state()
    before = pytorch.Network(experiment.model, state.eval_variables).state_dict()
    for number in range(2):
        batch = shard_batch(experiment.mesh, experiment.train_loader[number])
        state, metrics = experiment.train_step(state, batch)
        found, expected = trainer.step(number), jax.device_get(metrics.sums)
        assert found["loss"] == pytest.approx(float(expected["loss"]), rel=1e-5)
        assert found["top1"] == expected["top1"]
    found = trainer.network.state_dict()
    for name, value in pytorch.Network(experiment.model, state.eval_variables).state_dict().items():
        if "num_batches" not in name:
            torch.testing.assert_close(found[name], value, rtol=0, atol=1e-5, msg=name)
            assert (value - before[name]).abs().max() > 1e-4, name
    with pytest.raises(UserError, match=r"data\.mixup"):
        pytorch_recipe.Trainer(tiny(data__mixup=0.2))


def test_crops_are_windows_of_the_padded_image_and_half_are_mirrored():
    torch = pytest.importorskip("torch")
    from benchmarks.peers import pytorch_recipe

    torch.manual_seed(0)
    image = torch.arange(1, 21, dtype=torch.uint8).reshape(1, 4, 5, 1)
    found = pytorch_recipe.augment(image.expand(400, 4, 5, 1), pixels=1, flip=True)[..., 0]
    padded = torch.nn.functional.pad(image[0, :, :, 0], (1, 1, 1, 1))
    windows = [padded[top : top + 4, left : left + 5] for top in range(3) for left in range(3)]
    plain = [sum(torch.equal(crop, window) for crop in found) for window in windows]
    mirrored = [sum(torch.equal(crop, window.flip(1)) for crop in found) for window in windows]
    assert sum(plain) + sum(mirrored) == 400
    assert min(plain + mirrored) > 5
    assert 150 < sum(mirrored) < 250


def test_the_command_trains_in_pytorch_and_keeps_a_log(tmp_path):
    pytest.importorskip("torch")
    fabricate.idx_directory(tmp_path / "data", train=80, test=24, size=28)
    command = [sys.executable, "-m", "benchmarks.time_to_accuracy", *COMMAND[1:3]]
    command += [f"--config.data.dir={tmp_path / 'data'}", f"--output={tmp_path}"]
    command += ["--config.batch_size=16", "--config.num_epochs=1", "--config.model.width=4"]
    command[3] = "--config=configs/resnet18_fashion_mnist.py"
    fashion_mnist.write(fabricated(0, [0.5]), tmp_path / "fashion_mnist")
    done = subprocess.run(command, cwd=harness.ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ((name, [log]),) = fashion_mnist.read_kept(tmp_path / "fashion_mnist", "torch_").items()
    assert (log.epochs[-1]["step"], 0 <= log.epochs[-1]["eval_top1"] <= 1) == (5, True)
    assert str(tmp_path) not in log.header["command"]
    assert f"| {name} | PyTorch" in (tmp_path / "fashion_mnist.md").read_text()
