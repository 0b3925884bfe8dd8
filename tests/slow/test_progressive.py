"""Two processes whose images grow end as one does, also after a kill at the epoch's edge."""

import os
import random
import subprocess
import sys

import jax
import numpy as np
from running import QUICK, ROOT, devices, launch, log

import resnet_jax

RECIPE = (
    QUICK,
    "--config.model.width=4",
    "--config.model.stage_sizes=1,1",
    "--config.precision=float64",
    "--config.num_epochs=3",
    "--config.data.image_size=8",
    "--config.data.progressive_sizes=4,6",
    "--config.data.progressive_epochs=1,2",
    "--config.data.flip=True",
    "--config.ema.decay=0.9",
)
STEPS_PER_EPOCH = 22


def pair(program, workdir, status):
    """Runs a program in two processes of two devices each; both must end with the status."""
    port = random.randrange(20000, 60000)
    group = (f"--coordinator=127.0.0.1:{port}", "--num_processes=2")
    processes = [
        subprocess.Popen(
            [
                sys.executable,
                *program,
                *RECIPE,
                f"--workdir={workdir}",
                *group,
                f"--process_id={i}",
            ],
            cwd=ROOT,
            env=os.environ | devices(2),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(2)
    ]
    outputs = [process.communicate(timeout=300)[0] for process in processes]
    assert [process.returncode for process in processes] == [status] * 2, outputs
    return outputs[0]


def variables(workdir):
    return jax.tree.map(np.asarray, resnet_jax.restore(workdir, "last")[1])


def test_two_processes_go_on_at_the_edge_of_an_epoch_as_if_nothing_had_happened(tmp_path):
    straight, broken, alone = (tmp_path / name for name in ("straight", "broken", "alone"))
    pair(["launch.py"], straight, 0)
    for epoch in (1, 2):
        stop = ["tests/kill_at.py", f"step={epoch * STEPS_PER_EPOCH}", "SIGTERM"]
        pair(stop, broken, 143)
    said = pair(["launch.py"], broken, 0)
    assert "going on from step 44" in said
    jax.tree.map(np.testing.assert_array_equal, variables(broken), variables(straight))
    assert log(broken) == log(straight)
    launch(*RECIPE, f"--workdir={alone}", **devices(8))
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-9),
        variables(alone),
        variables(straight),
    )
