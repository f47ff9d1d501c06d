"""Prepares JAX before it starts: XLA flags, the run's processes, the device."""

import atexit
import ctypes
import os
import platform
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, NoReturn

from BC_training.common.errors import UserError, first_line

if TYPE_CHECKING:
    from BC_training.common.settings.system import DistributedConfig, SystemConfig

_CONNECT_SECONDS = 300  # the processes of a cluster may start this far apart
_WAIT_SECONDS = 24 * 3600  # one process may record, score or play this long while the others wait
_GRACE_SECONDS = 2  # the others can print an error that all have, before JAX ends them
_FIRST_PORT = 61440  # the first of the 4096 ports from which JAX takes a cluster's


def set_xla_flags() -> None:
    """Turns off a fusion of jaxlib 0.10's CPU backend that slows convolutions and can crash or hang.

    It must run before JAX starts its backend. It adds to a user's XLA_FLAGS, unless they name the
    same flag. It does not touch those of a jaxlib of another version, which may not know the flag
    and would end the process. The crash: https://github.com/jax-ml/jax/issues/39257.
    """
    if version("jaxlib").startswith("0.10."):
        _add_xla_flag("--xla_cpu_experimental_ynn_fusion_type", "")


def _add_xla_flag(name: str, value: str) -> None:
    """Appends a flag to XLA_FLAGS, unless they name it."""
    flags = os.environ.get("XLA_FLAGS", "")
    if name not in (flag.split("=")[0] for flag in flags.split()):
        os.environ["XLA_FLAGS"] = f"{flags} {name}={value}".strip()


def keep_freed_memory() -> None:
    """Makes glibc keep what this process frees, and does nothing where there is no glibc.

    XLA's CPU backend allocates and frees the buffers of each step. By default glibc returns them to
    the kernel, which clears their pages before it hands them out again: up to a third of a step.
    """
    if platform.libc_ver()[0] == "glibc":
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(-8, 1)  # M_ARENA_MAX: one heap, for other heaps are trimmed whatever the options
        mallopt(-4, 0)  # M_MMAP_MAX: large blocks come from it, too
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD: and it is not trimmed


def prepare_devices(system: "SystemConfig") -> str:
    """Applies ``system`` to JAX, which must not have started, and returns the devices in words.

    Raises:
        UserError: see ``start_distributed`` and ``choose_device``.
    """
    from BC_training.runtime.compilation_cache import use_compilation_cache

    keep_freed_memory()
    if system.deterministic:
        _add_xla_flag("--xla_gpu_deterministic_ops", "true")
    start_distributed(system.distributed)
    use_compilation_cache()
    return choose_device(system.device)


def choose_device(kind: str) -> str:
    """Makes JAX use ``kind`` ("auto", "cpu" or "gpu") and returns the devices in words.

    Raises:
        UserError: JAX cannot find or start such a device, or the processes of the run have
            different numbers of devices.
    """
    import jax  # here: set_xla_flags must come first

    if kind == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"  # for worker processes
        jax.config.update("jax_platforms", "cpu")
    try:
        devices = jax.devices("gpu") if kind == "gpu" else jax.devices()
    except RuntimeError as error:
        reason = first_line(error)
        if kind == "gpu":
            raise UserError(
                f"system.device=gpu, but JAX finds no NVIDIA GPU ({reason}): install JAX for it with "
                "'uv sync --group cuda', or set system.device=auto"
            ) from error
        raise UserError(
            f"JAX cannot start a device for system.device={kind} ({reason}): see JAX_PLATFORMS and the GPU's "
            "driver, or set system.device=cpu"
        ) from error
    counts = Counter(device.process_index for device in devices)
    if len(set(counts.values())) > 1:
        listed = ", ".join(f"{counts[process]} in process {process}" for process in sorted(counts))
        raise UserError(
            f"the processes of this run have different numbers of devices ({listed}): give each as many, "
            "for GPUs with CUDA_VISIBLE_DEVICES"
        )
    if len(devices) == 1:
        return devices[0].device_kind
    processes = f" in {jax.process_count()} processes" if jax.process_count() > 1 else ""
    return f"{len(devices)} devices{processes} ({devices[0].device_kind})"


def start_distributed(options: "DistributedConfig | None") -> None:
    """Connects this process with the others of its run, if there are any and it is not yet connected.

    The processes are those of ``options``, of an Open MPI job, or of a Slurm step (``srun``). An
    allocation without srun, or a single task, is a single process.

    Raises:
        UserError: the processes have not found each other after five minutes, or the
            coordinator's port is taken.
    """
    arguments = _distributed_arguments(options, os.environ)
    if arguments is None:
        return
    import jax

    if jax.distributed.is_initialized():  # by a training before, in the same process
        return
    from orbax.checkpoint import multihost  # noqa: F401 (it cannot be loaded at exit)

    jax.config.update("jax_enable_preemption_service", False)  # it would take SIGTERM and go on
    failures: list[Exception] = []

    def connect() -> None:
        try:
            jax.distributed.initialize(**arguments, initialization_timeout=2 * _CONNECT_SECONDS)
        except Exception as error:
            failures.append(error)

    # JAX ends the process with a stack trace when its own time is up, so that is longer.
    thread = threading.Thread(target=connect, daemon=True)
    thread.start()
    thread.join(_CONNECT_SECONDS)
    where = arguments.get("coordinator_address") or os.environ.get("JAX_COORDINATOR_ADDRESS")
    where = f"the coordinator {where}" if where else "process 0"
    if thread.is_alive():
        raise UserError(
            f"the processes of this run have not found each other in {_CONNECT_SECONDS} s: start all of them, "
            f"and see that each reaches {where}"
        )
    if failures and not isinstance(failures[0], RuntimeError):
        raise failures[0]
    if failures:
        reason = first_line(failures[0])
        raise UserError(f"cannot connect to {where} ({reason}): is its port free, and the address right?")
    # This comes before JAX's own wait at exit, which ends all processes after five minutes.
    atexit.register(wait_for_all, "exit")


def wait_for_all(name: str) -> None:
    """Returns when every process of the run has called it with the same ``name``, which is new each time.

    Raises:
        RuntimeError: another process is dead, or a day late.
    """
    from orbax.checkpoint import multihost  # a collective would keep devices busy, and not wait as long

    multihost.get_barrier_sync_fn()(key=name, timeout_ms=_WAIT_SECONDS * 1000)


def leave(code: int) -> NoReturn:
    """Ends this process after an error.

    One of several processes ends at once: an orderly end would wait for the others, which wait for it.
    """
    if "jax" in sys.modules and sys.modules["jax"].distributed.is_initialized():
        sys.stdout.flush()
        sys.stderr.flush()
        time.sleep(_GRACE_SECONDS)
        os._exit(code)
    sys.exit(code)


def _distributed_arguments(options: "DistributedConfig | None", env: Mapping[str, str]) -> dict[str, Any] | None:
    """The arguments of ``jax.distributed.initialize``; None for a single process."""
    if options is not None:
        if options.num_processes == 1:
            return None
        return {
            "coordinator_address": options.coordinator,
            "num_processes": options.num_processes,
            "process_id": options.process_id,
            "cluster_detection_method": "deactivate",
        }
    if int(env.get("OMPI_COMM_WORLD_SIZE", 1)) > 1:
        one_per_host = env.get("OMPI_COMM_WORLD_LOCAL_SIZE") == "1"
        detected = "OMPI_MCA_orte_hnp_uri" in env
        arguments: dict[str, Any] = {"cluster_detection_method": "ompi"} if detected else _open_mpi_5(env)
    # The step's number: in an interactive allocation SLURM_NTASKS is that of the allocation.
    elif int(env.get("SLURM_STEP_NUM_TASKS", 1)) > 1:
        one_per_host = env["SLURM_STEP_NUM_TASKS"] == env.get("SLURM_STEP_NUM_NODES")
        arguments = {"cluster_detection_method": "slurm"}
    else:
        return None
    # JAX gives each process the GPU of its number on the host. A process may use all that it sees
    # if it is the only one there, or if the launcher has given each process its own.
    given = env.get("CUDA_VISIBLE_DEVICES", "")
    if "JAX_LOCAL_DEVICE_IDS" not in env and (one_per_host or (given and "," not in given)):
        arguments["local_device_ids"] = []
    return arguments


def _open_mpi_5(env: Mapping[str, str]) -> dict[str, Any]:
    """JAX knows only the variables of Open MPI up to 4. As there, process 0 should run on mpirun's host."""
    arguments: dict[str, Any] = {
        "num_processes": int(env["OMPI_COMM_WORLD_SIZE"]),
        "process_id": int(env["OMPI_COMM_WORLD_RANK"]),
        "cluster_detection_method": "deactivate",
    }
    if "JAX_COORDINATOR_ADDRESS" not in env:
        launcher = re.fullmatch(r"prte\w*-(.+)-(\d+)@\d+", env.get("PMIX_NAMESPACE", ""))
        if launcher is None:
            raise UserError(
                "cannot tell from Open MPI's variables where process 0 runs: "
                "set JAX_COORDINATOR_ADDRESS=HOST:PORT (mpirun -x JAX_COORDINATOR_ADDRESS=...)"
            )
        port = env.get("JAX_COORDINATOR_PORT") or _FIRST_PORT + int(launcher[2]) % 4096
        arguments["coordinator_address"] = f"{launcher[1]}:{port}"
    if "JAX_LOCAL_DEVICE_IDS" not in env:
        arguments["local_device_ids"] = [int(env["OMPI_COMM_WORLD_LOCAL_RANK"])]
    return arguments
