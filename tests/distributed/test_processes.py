"""Several processes of one run on this machine, over the loopback: the same numbers, and no
hanging.
"""

import json
import os
import random
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import fabricate
import jax
import numpy as np
import pytest
from running import output_of

from resnet_jax import run
from resnet_jax.distributed import abort
from resnet_jax.distributed.launch import cluster, start_processes
from resnet_jax.distributed.mesh import make_mesh
from resnet_jax.errors import UserError

ROOT = Path(__file__).parents[2]
RECIPE = (
    "--config=configs/quickstart.py",
    "--config.model.width=4",
    "--config.model.stage_sizes=1,1",
    "--config.precision=float64",
    f"--config.num_epochs={20 / 22}",
    "--config.schedule.warmup_epochs=0.5",
    "--config.checkpoint.every_epochs=0.5",
    "--config.log_every_steps=1",
    "--config.data.flip=True",
)


def start(program, *arguments, devices=2, **environment):
    return subprocess.Popen(
        [sys.executable, *program, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ
        | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}"}
        | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


# XLA's own transport on CPUs writes to standard output, piece by piece and from several threads
# into each other's lines: a line of its pieces alone, in whatever order, is its own.
GLOO = re.compile(
    r"(\[Gloo\] Rank |\d+| is connected to | peer ranks\. |Expected number of connected peer ranks"
    r" is : )*\n?"
)


def finish(process, status=0):
    output, errors = output_of(process)
    assert process.returncode == status, output + errors
    return "".join(line for line in output.splitlines(True) if not GLOO.fullmatch(line)), errors


def free_port(low=20000, high=60000):
    while True:
        port = random.randrange(low, high)
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)):
                return port


def by_flags(number, count=2, port=None):
    return f"--coordinator=127.0.0.1:{port}", f"--num_processes={count}", f"--process_id={number}"


def slurm(number, port):
    """Returns what Slurm sets; JAX takes port 61440 + job id % 4096."""
    return {
        "SLURM_JOB_ID": str(port - 61440),
        "SLURM_STEP_NODELIST": "127.0.0.1",
        "SLURM_STEP_NUM_NODES": "1",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": str(number),
        "SLURM_LOCALID": str(number),
    }


def open_mpi(number, port):
    """Returns what Open MPI 4 sets; JAX takes port 61440 + job number % 4096."""
    return {
        "OMPI_MCA_orte_hnp_uri": f"{(port - 61440) * 4096}.0;tcp://127.0.0.1:34911",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": str(number),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(number),
    }


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Returns the workdirs of one run on 2 processes of 2 devices, 1 of 4 and 1 of 1, and what the
    two said.
    """
    two, four, one = (tmp_path_factory.mktemp(name) for name in ("two", "four", "one"))
    port = free_port()
    pair = [
        start(["launch.py"], *RECIPE, f"--workdir={two}", *by_flags(number, port=port))
        for number in range(2)
    ]
    outputs = [finish(process) for process in pair]
    finish(start(["launch.py"], *RECIPE, f"--workdir={four}", devices=4))
    finish(start(["launch.py"], *RECIPE, f"--workdir={one}", devices=1))
    return two, four, one, outputs


def test_only_process_0_speaks_and_says_what_was_found(trained):
    (lead, _), (other, _) = trained[3]
    assert lead.splitlines()[0] == "devices   4 × CPU in 2 processes"
    assert other == ""


def test_processes_and_devices_do_not_change_what_is_learned(trained):
    reference, records = None, None
    for workdir in trained[:3]:
        _, variables, description = run.restore(workdir, "last")
        lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
        variables = jax.tree.map(np.asarray, variables)
        assert description.step == 20
        assert lines[-1]["examples"] == 355
        if reference is None:
            reference, records = variables, lines
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9),
            variables,
            reference,
        )
        assert [line["step"] for line in lines] == [line["step"] for line in records]
        for line, record in zip(lines, records, strict=True):
            assert line["loss"] == pytest.approx(record["loss"], abs=1e-9)
            assert (line["top1"], line["top5"]) == (record["top1"], record["top5"])


@pytest.mark.parametrize("launcher", [slurm, open_mpi])
def test_the_launcher_is_found_and_evaluation_is_exact_to_the_last_image(trained, launcher):
    workdir, port = trained[0], free_port(61440, 65535)
    pair = [
        start(
            ["launch.py"],
            "--mode=evaluate",
            f"--workdir={workdir}",
            "--which=last",
            "--batch_size=37",
            **environment,
        )
        for environment in (launcher(number, port) for number in range(2))
    ]
    (lead, _), (other, _) = map(finish, pair)
    logged = json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])
    score = json.loads(lead.splitlines()[-1])
    assert score["examples"] == 355
    assert score["loss"] == pytest.approx(logged["loss"], abs=1e-9)
    assert (score["top1"], score["top5"]) == (logged["top1"], logged["top5"])
    assert other == ""


AT_STEP_0 = """
import sys
import jax
import numpy as np
from configs.quickstart import get_config
from resnet_jax import config as config_lib
from resnet_jax.distributed.launch import start_processes
from resnet_jax.distributed.runtime import prepare_runtime
from resnet_jax.experiment import Experiment
output, weights, *cluster = sys.argv[1:]
if cluster:
    start_processes(cluster[0], 2, int(cluster[1]))
config = get_config()
config.precision, config.model.width, config.model.stage_sizes = "float64", 4, (1, 1)
config.init.weights, config.init.head = weights, "fresh"
config_lib.validate(config)
prepare_runtime(config.precision, config.deterministic)
state = Experiment.for_training(config).create_state()
leaves = jax.tree.leaves_with_path(state.eval_variables)
np.savez(output, **{jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves})
"""


def test_two_processes_start_from_the_very_weights_that_one_starts_from(trained, tmp_path):
    address = f"127.0.0.1:{free_port()}"
    clusters = [(), (address, 0), (address, 1)]
    begun = [
        start(["-c", AT_STEP_0], tmp_path / f"{number}.npz", trained[1], *cluster)
        for number, cluster in enumerate(clusters)
    ]
    for process in begun:
        finish(process)
    one, *two = (np.load(tmp_path / f"{number}.npz") for number in range(3))
    _, parent, _ = run.restore(trained[1])
    for states in two:
        assert states.files == one.files
        for name in one.files:
            np.testing.assert_array_equal(states[name], one[name])
    for path, leaf in jax.tree.leaves_with_path(parent):
        name = jax.tree_util.keystr(path)
        assert np.array_equal(one[name].astype(leaf.dtype), leaf) != ("fc" in name)


@pytest.mark.parametrize(
    ("process", "name", "status"),
    [
        (1, "SIGTERM", 143),
        (0, "SIGUSR1", 143),
        pytest.param(1, "SIGINT", 130, marks=pytest.mark.slow),
    ],
)
def test_a_signal_to_one_process_stops_all_at_the_same_step_and_one_process_goes_on(
    trained, tmp_path, process, name, status
):
    port = free_port()
    programs = [["launch.py"], ["launch.py"]]
    programs[process] = ["tests/kill_at.py", "step=8", name]
    pair = [
        start(program, *RECIPE, f"--workdir={tmp_path}", *by_flags(number, port=port))
        for number, program in enumerate(programs)
    ]
    (lead, _), _ = [finish(process, status) for process in pair]
    # Every step here is logged, and so read before the next one is started.
    assert "saved step 8; the same command resumes" in lead
    output, _ = finish(start(["launch.py"], *RECIPE, f"--workdir={tmp_path}", devices=1))
    assert "going on from step 8" in output
    (_, ended, _), (_, straight, _) = (
        run.restore(workdir, "last") for workdir in (tmp_path, trained[2])
    )
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9), ended, straight
    )


def test_processes_that_do_not_have_the_same_data_are_told_before_anything_is_trained(tmp_path):
    port, workdir = free_port(), tmp_path / "run"
    for number in range(2):
        fabricate.idx_directory(tmp_path / str(number), train=80, test=20 + number)
    pair = [
        start(
            ["launch.py"],
            *RECIPE,
            "--config.data.name=idx",
            f"--config.data.dir={tmp_path / str(number)}",
            f"--workdir={workdir}",
            *by_flags(number, port=port),
        )
        for number in range(2)
    ]
    (_, errors), _ = [finish(process, status=1) for process in pair]
    assert "error: another recipe or other data than process 0 in process 1: " in errors
    assert not workdir.exists()


@pytest.mark.parametrize("mode", ["summarize", "prepare"])
def test_what_runs_in_one_process_is_not_started_in_several(mode):
    _, errors = finish(start(["launch.py"], f"--mode={mode}", **slurm(1, 61441)), status=1)
    assert f"--mode={mode} runs in one process" in errors


@pytest.mark.parametrize("victim", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_when_one_process_is_killed_the_other_ends_and_says_why(tmp_path, victim):
    port = free_port()
    pair = [
        start(
            ["tests/kill_at.py", "step=10", "SIGKILL"] if number == victim else ["launch.py"],
            *RECIPE,
            f"--workdir={tmp_path}",
            *by_flags(number, port=port),
        )
        for number in range(2)
    ]
    finish(pair[victim], status=-9)
    _, errors = finish(pair[1 - victim], status=1)
    assert errors.splitlines()[-1] == abort.LOST


@pytest.mark.parametrize("number", [0, 1])
def test_a_process_that_finds_no_other_says_so(number):
    alone = (
        "from resnet_jax.distributed import launch; launch.START_TIMEOUT_SECONDS = 2; "
        f"launch.start_processes('127.0.0.1:{free_port()}', 2, {number})"
    )
    _, errors = finish(start(["-c"], alone), status=1)
    assert errors.splitlines()[-1] == abort.NOT_FOUND


def test_no_launcher_means_one_process_and_no_waiting(monkeypatch):
    for name in os.environ:
        if name.startswith(("SLURM_", "OMPI_")):
            monkeypatch.delenv(name)
    assert cluster() is None
    start_processes()
    assert not jax.distributed.is_initialized()
    # As in the batch script itself, outside srun.
    monkeypatch.setenv("SLURM_NTASKS", "8")
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    assert cluster() is None


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (("host:1", None, None), "go together"),
        (("host:1", 2, 2), "--process_id=2: must be 0 to 1"),
        ((None, 2, 0), "go together"),
    ],
)
def test_half_a_cluster_is_refused(given, words):
    with pytest.raises(UserError, match=words):
        start_processes(*given)


def test_a_new_open_mpi_is_asked_for_the_coordinator(monkeypatch):
    for name, value in open_mpi(1, 61441).items():
        if name != "OMPI_MCA_orte_hnp_uri":
            monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="--coordinator is missing"):
        start_processes()


def test_kubernetes_without_its_package_is_told_what_to_install(monkeypatch):
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "10.0.0.1")
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "0")
    monkeypatch.setitem(sys.modules, "kubernetes", None)
    with pytest.raises(UserError, match=r"pip install \"jax\[k8s\]\""):
        start_processes()


@pytest.mark.parametrize("coordinator", [None, "node1:1234"])
@pytest.mark.parametrize(("tasks", "gpus"), [(2, list(range(8))), (16, None)])
def test_a_slurm_task_alone_on_its_machine_takes_all_gpus(monkeypatch, coordinator, tasks, gpus):
    machine = {"SLURM_NTASKS": str(tasks), "SLURM_STEP_NUM_NODES": "2", "SLURM_GPUS_ON_NODE": "8"}
    for name, value in (slurm(1, 61441) | machine | {"SLURM_LOCALID": "0"}).items():
        monkeypatch.setenv(name, value)
    given = {}
    monkeypatch.setattr(jax.distributed, "initialize", lambda **arguments: given.update(arguments))
    monkeypatch.setattr(jax.config, "update", lambda *_: None)
    monkeypatch.setattr(abort, "speak_on_abort", lambda *_: None)
    start_processes(coordinator)
    # Otherwise a GPU a task: JAX's own doing, or, where the coordinator is named, ours.
    assert given.get("local_device_ids") == (gpus or ([0] if coordinator else None))


class OfAnotherMachine:
    """A device as JAX shows those of several machines of GPUs."""

    platform, device_kind = "gpu", "NVIDIA H100"

    def __init__(self, process_index, number):
        self.process_index, self.id, self.slice_index = process_index, number, process_index


def test_the_mesh_goes_from_process_to_process_on_any_number_of_machines():
    devices = [
        OfAnotherMachine(process, number) for process, number in ((1, 0), (0, 3), (1, 2), (0, 1))
    ]
    ordered = make_mesh(devices).devices
    assert [(device.process_index, device.id) for device in ordered] == [
        (0, 1),
        (0, 3),
        (1, 0),
        (1, 2),
    ]


def error_of(process):
    _, errors = finish(process, status=1)
    assert "Traceback" not in errors
    (line,) = [line for line in errors.splitlines() if line.startswith("error: ")]
    return line


@pytest.mark.parametrize("harm", ["gone", "another"])
def test_processes_that_see_different_checkpoints_score_none(trained, tmp_path, harm):
    """A stale view of a disk, another disk, or a checkpoint that was saved in between."""
    shutil.copytree(trained[0], tmp_path / "stale")
    last = tmp_path / "stale" / "checkpoints" / "20"
    if harm == "gone":
        shutil.rmtree(last)
    else:
        shutil.rmtree(last)
        shutil.copytree(trained[1] / "checkpoints" / "20", last)
    port = free_port()
    pair = [
        start(
            ["launch.py"],
            "--mode=evaluate",
            "--which=last",
            f"--workdir={workdir}",
            *by_flags(number, port=port),
        )
        for number, workdir in enumerate((trained[0], tmp_path / "stale"))
    ]
    for process in pair:
        assert "process 1 does not see the checkpoint of step 20" in error_of(process)


IMPATIENT = """
import sys
from resnet_jax import run
from resnet_jax.__main__ import main
run._MOST_LOOKS = 2
sys.exit(main(["launch.py", *sys.argv[1:]]))
"""


def test_processes_that_do_not_share_the_workdir_are_told_before_anything_is_trained(tmp_path):
    port = free_port()
    pair = [
        start(
            ["-c", IMPATIENT], *RECIPE, f"--workdir={tmp_path / name}", *by_flags(number, port=port)
        )
        for number, name in enumerate("ab")
    ]
    for process in pair:
        assert "process 1 does not see there what process 0 writes" in error_of(process)
    assert not list(tmp_path.iterdir())
