"""What importing the package brings along, seen from a fresh process."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def modules_after(statement):
    code = f"{statement}; import sys, json; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout))


def test_the_networks_need_jax_and_flax_and_nothing_else():
    baseline = {name.partition(".")[0] for name in modules_after("import jax, flax.linen")}
    ours = {
        name.partition(".")[0] for name in modules_after("from resnet_jax.models import ResNet")
    }
    assert ours - baseline - set(sys.stdlib_module_names) == {"resnet_jax"}
    rooms = {name for name in modules_after("import resnet_jax") if name.startswith("resnet_jax.")}
    assert not {
        name
        for name in rooms
        if name.split(".")[1] in ("data", "training", "commands", "config", "run")
    }


def test_training_loads_no_tensorflow_and_no_torch():
    loaded = modules_after("import launch")
    assert not {"tensorflow", "torch", "tensorflow_datasets", "sklearn"} & loaded
