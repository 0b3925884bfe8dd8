"""Starting the processes of one run: found by the launcher's environment, or given by flags."""

import importlib.util
import os
from typing import Any

import jax

from resnet_jax.distributed import abort
from resnet_jax.errors import UserError, first_line

START_TIMEOUT_SECONDS = 300
HEARTBEAT_SECONDS = 20

# launcher -> the variables that all have to be there, those of the count and of the number of a
# process first
_LAUNCHERS = {
    "slurm": (
        "SLURM_NTASKS",
        "SLURM_PROCID",
        "SLURM_LOCALID",
        "SLURM_JOB_ID",
        "SLURM_STEP_NODELIST",
    ),
    "ompi": ("OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_RANK"),
}


def cluster() -> str | None:
    """Returns the name of the launcher whose variables are set for several processes, or None.

    Looks at the environment only, so a start outside any cluster never waits for a network.
    """
    for name, variables in _LAUNCHERS.items():
        if (
            all(variable in os.environ for variable in variables)
            and int(os.environ[variables[0]]) > 1
        ):
            return name
    if "KUBERNETES_SERVICE_HOST" in os.environ and "JOB_COMPLETION_INDEX" in os.environ:
        return "k8s"
    if (
        "," in os.environ.get("TPU_WORKER_HOSTNAMES", "")
        or "MEGASCALE_COORDINATOR_ADDRESS" in os.environ
    ):
        return "tpu"
    return None


def start_processes(
    coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None
) -> None:
    """Joins the processes of one run; must come before anything asks for devices.

    With no arguments the launcher is found out from the environment (`cluster`); where there is
    none, this is a run of one process and nothing happens. Under Slurm and Open MPI `coordinator`
    may be given alone.

    Args:
      coordinator: "host:port" of process 0.
      num_processes: how many processes there are.
      process_id: which one this is, from 0.

    Raises:
      UserError: too few of the three are given, or the processes do not find each other.
    """
    arguments = _arguments(coordinator, num_processes, process_id)
    if arguments is None:
        return
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    # The stop flag of `distributed.signals` replaces JAX's own watch for SIGTERM.
    jax.config.update("jax_enable_preemption_service", False)
    abort.speak_on_abort(abort.NOT_FOUND)
    try:
        jax.distributed.initialize(
            **arguments,
            initialization_timeout=START_TIMEOUT_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        )
    except (RuntimeError, ValueError) as error:
        raise UserError(
            f"the processes did not find each other ({first_line(error)}): check"
            " --coordinator=host:port, --num_processes and --process_id, and that the port is"
            " reachable"
        ) from error
    abort.speak_on_abort(abort.LOST)


def _arguments(
    coordinator: str | None, num_processes: int | None, process_id: int | None
) -> dict[str, Any] | None:
    """Returns what `jax.distributed.initialize` is to be given, None for a run of one process."""
    launcher, local = cluster(), {}
    alone = _gpus_of_the_only_task_on_this_node() if launcher == "slurm" else []
    if (
        coordinator is not None
        and (num_processes, process_id) == (None, None)
        and launcher in _LAUNCHERS
    ):
        num_processes, process_id, local_id = (
            int(os.environ[name]) for name in _LAUNCHERS[launcher][:3]
        )
        # All GPUs for a task alone on its node, else one a process, as JAX has it under these
        # launchers.
        local = {"local_device_ids": alone or [local_id]}
    given = (coordinator, num_processes, process_id)
    if given != (None, None, None):
        if coordinator is None or num_processes is None or process_id is None:
            raise UserError(
                f"--coordinator={coordinator} --num_processes={num_processes}"
                f" --process_id={process_id}: go together; give all three, or none"
            )
        if not 0 <= process_id < num_processes:
            raise UserError(
                f"--process_id={process_id}: must be 0 to {num_processes - 1} (--num_processes)"
            )
        return {
            "coordinator_address": coordinator,
            "num_processes": num_processes,
            "process_id": process_id,
            "cluster_detection_method": "deactivate",
            **local,
        }
    if launcher is None:
        return None
    if launcher == "ompi" and "OMPI_MCA_orte_hnp_uri" not in os.environ:
        raise UserError(
            "--coordinator is missing: this Open MPI (5 or later) does not say where process 0 is; "
            "give --coordinator=HOST:PORT with the host of rank 0"
        )
    if launcher == "k8s" and importlib.util.find_spec("kubernetes") is None:
        raise UserError(
            "--coordinator is missing, and so is the package by which JAX finds Kubernetes' pods;"
            ' pip install "jax[k8s]"'
        )
    arguments: dict[str, Any] = {} if launcher == "tpu" else {"cluster_detection_method": launcher}
    if alone:
        arguments["local_device_ids"] = alone
    return arguments


def _gpus_of_the_only_task_on_this_node() -> list[int]:
    """Returns the GPUs of a Slurm node that runs one task: JAX would take the first; else none."""
    if os.environ.get("SLURM_STEP_NUM_NODES") != os.environ["SLURM_NTASKS"]:
        return []
    return list(range(int(os.environ.get("SLURM_GPUS_ON_NODE", "0"))))
