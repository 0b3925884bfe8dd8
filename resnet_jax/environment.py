"""What a run was started with: command, package versions, commit, devices."""

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import resnet_jax
from resnet_jax.data.images.decode import cores
from resnet_jax.distributed.mesh import describe_devices

PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "ml_collections",
)


def describe_start(train_images: int, image_shape: tuple[int, ...] | None) -> dict[str, Any]:
    """Returns what environment.json keeps of this start of a run.

    Args:
      train_images: how many there are.
      image_shape: of each of them in the source; None where they differ.
    """
    return {
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "packages": {
            **{name: importlib.metadata.version(name) for name in PACKAGES},
            "resnet_jax": resnet_jax.__version__,
        },
        "commit": _commit(),
        "devices": describe_devices(),
        "cores": cores(),
        "train_images": train_images,
        "image_shape": image_shape,
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def _commit() -> str | None:
    """Returns the commit of a checkout of this package, "+" behind it when files have changed."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        tracked = subprocess.run(
            [*git, "ls-files", "--error-unmatch", __file__], capture_output=True, check=False
        )
        if tracked.returncode:
            return None
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "-uno"], capture_output=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + "+" * bool(changed)
