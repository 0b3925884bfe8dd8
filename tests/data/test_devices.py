"""Augmentation is the same function of the global batch on any number of devices."""

import os
import pathlib
import subprocess
import sys

SCRIPT = """
import functools
import re

import jax
import numpy as np
from data_settings import settings
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from resnet_jax import data

sharding = NamedSharding(jax.make_mesh((8,), ("data",), axis_types=(AxisType.Auto,)), PartitionSpec("data"))
for changes in (
    {"pad_and_crop": 2, "random_erasing": 0.5, "mixup": 0.2, "cutmix": 1.0},
    {"flip_mode": "alternating", "policy": "trivialaugment_wide"},
    {"repeats": 3, "policy": "randaugment", "mixup": 0.2},
):
    config = settings(flip=True, **changes)
    source = data.open_source(config, True)
    augment = functools.partial(data.make_augment(config, source, 10), seed=np.array([0, 0], np.uint32))
    batch = data.Loader(source, config, batch_size=32, seed=0, train=True)[len(source) // 32]
    one = jax.jit(augment)(jax.device_put(batch, jax.devices()[0]))
    shared = jax.device_put(batch, sharding)
    compiled = jax.jit(augment, out_shardings=(sharding, sharding)).lower(shared).compile()
    assert all(np.array_equal(first, second) for first, second in zip(one, compiled(shared), strict=True))
    talk = set(re.findall(r"(all-gather|all-to-all|collective-permute|reduce-scatter)", compiled.as_text()))
    assert not talk, talk
"""


def test_eight_devices_augment_as_one_does_and_move_no_images():
    here = str(pathlib.Path(__file__).parent)
    environment = {
        **os.environ,
        "XLA_FLAGS": "--xla_force_host_platform_device_count=8",
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), here])),
    }
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        check=False,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
