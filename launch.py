"""Runs one command of resnet_jax: `python launch.py --config=configs/quickstart.py`."""

import sys

from resnet_jax.__main__ import main

if __name__ == "__main__":
    sys.exit(main(sys.argv))
