import os
import shutil
import socket
import subprocess
import sys
import textwrap
from types import SimpleNamespace

import jax
import pytest
from trainings import free_port, start

from BC_training.common.config import load_config
from BC_training.common.errors import UserError
from BC_training.common.settings.system import DistributedConfig, SystemConfig
from BC_training.runtime import devices
from BC_training.runtime.devices import _distributed_arguments, choose_device, set_xla_flags

# Each process of a run prints the devices, its number, a sum over all processes, and the XLA flags.
PROCESS = """
    import os, sys
    import jax, numpy as np
    from BC_training.runtime import devices
    from BC_training.common.settings.system import DistributedConfig, SystemConfig
    distributed = None
    if len(sys.argv) > 1:
        distributed = DistributedConfig(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
    try:
        for _ in range(2):  # as in a suite, whose trainings share the process
            words = devices.prepare_devices(SystemConfig(device="cpu", deterministic=True, distributed=distributed))
    except devices.UserError as error:
        print(f"error: {error}")
        devices.leave(2)
    mesh = jax.make_mesh((jax.device_count(),), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    mine = np.full(jax.local_device_count(), jax.process_index() + 1, np.float32)
    total = jax.jit(jax.numpy.sum)(jax.make_array_from_process_local_data(sharding, mine))
    devices.wait_for_all("half")
    flags = os.environ["XLA_FLAGS"].replace("deterministic_ops", "D")
    sys.stdout.write(f"{words}; process {jax.process_index()}; sum {float(total):g}; {flags}\\n")
"""
CODE = textwrap.dedent(PROCESS)


def test_auto_takes_what_jax_finds():
    assert jax.devices()[0].device_kind in choose_device("auto")


@pytest.mark.parametrize(("kind", "advice"), [("auto", "system.device=cpu"), ("gpu", "uv sync --group cuda")])
def test_a_device_that_does_not_start_is_an_error_with_the_reason(monkeypatch, kind, advice):
    def fail(*_):
        raise RuntimeError("no such backend: tpu\nand much more")

    monkeypatch.setattr(jax, "devices", fail)
    with pytest.raises(UserError, match=rf"system\.device={kind}.*\(no such backend: tpu\).*{advice}") as caught:
        choose_device(kind)
    assert "\n" not in str(caught.value)


def test_processes_with_different_numbers_of_devices_are_refused(monkeypatch):
    found = [SimpleNamespace(process_index=process, device_kind="cpu") for process in (0, 0, 1, 1)]
    monkeypatch.setattr(jax, "devices", lambda *_: found)
    assert choose_device("auto").startswith("4 devices")
    found.pop()
    with pytest.raises(UserError, match="2 in process 0, 1 in process 1"):
        choose_device("auto")


FLAG = "--xla_cpu_experimental_ynn_fusion_type"


@pytest.mark.parametrize(
    ("version", "flags", "expected"),
    [
        ("0.10.2", None, f"{FLAG}="),
        ("0.11.0", None, None),  # may not know the flag, which would end the process
        ("0.10.2", "--my_flag", f"--my_flag {FLAG}="),
        ("0.10.2", f"{FLAG}=eltwise --my_flag", f"{FLAG}=eltwise --my_flag"),
        ("0.11.0", "--my_flag", "--my_flag"),
    ],
)
def test_the_flag_is_set_where_jaxlib_knows_it_and_the_user_does_not_set_it(monkeypatch, version, flags, expected):
    monkeypatch.setattr(devices, "version", lambda name: version)
    environment = {} if flags is None else {"XLA_FLAGS": flags}
    monkeypatch.setattr(os, "environ", environment)
    set_xla_flags()
    assert environment.get("XLA_FLAGS") == expected


@pytest.mark.slow
def test_two_processes_that_the_config_names_are_deterministic_beside_the_users_flags():
    address, flags = f"127.0.0.1:{free_port()}", "--xla_force_host_platform_device_count=2"
    processes = [start(["-c", CODE, address, "2", str(process)], devices=2) for process in range(2)]
    texts = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], texts
    assert [text.splitlines()[-1] for text in texts] == [
        f"4 devices in 2 processes (cpu); process {process}; sum 6; {flags} --xla_gpu_D=true" for process in range(2)
    ]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("mpirun") is None, reason="needs Open MPI's mpirun")
@pytest.mark.parametrize("processes", [1, 2])
def test_processes_of_open_mpi_find_each_other(processes):
    command = ["mpirun", "--allow-run-as-root", "--oversubscribe", "-n", str(processes), sys.executable, "-c", CODE]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, timeout=120, check=True)
    lines = sorted(line.rpartition(";")[0] for line in result.stdout.splitlines() if "sum" in line)
    if processes == 1:
        assert lines == ["cpu; process 0; sum 1"]
    else:
        assert lines == [f"2 devices in 2 processes (cpu); process {process}; sum 3" for process in range(2)]


@pytest.mark.slow
@pytest.mark.parametrize("process", [0, 1])
def test_a_process_that_finds_no_other_ends_with_an_error(process):
    code = CODE.replace("distributed = None", "devices._CONNECT_SECONDS = 2; distributed = None")
    lone = start(["-c", code, f"127.0.0.1:{free_port()}", "2", str(process)])
    text = lone.communicate(timeout=120)[0]
    assert lone.returncode == 2
    assert text.startswith("error: the processes of this run have not found each other in 2 s")
    assert text.count("\n") == 1


@pytest.mark.slow
def test_a_taken_port_is_an_error():
    with socket.socket(socket.AF_INET6) as taken:
        taken.bind(("::", 0))
        taken.listen()
        process = start(["-c", CODE, f"127.0.0.1:{taken.getsockname()[1]}", "2", "0"])
        text = process.communicate(timeout=120)[0]
    assert process.returncode == 2
    assert "error: cannot connect to the coordinator 127.0.0.1" in text
    assert "is its port free" in text.splitlines()[-1]


STEP = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "3", "OMPI_COMM_WORLD_LOCAL_RANK": "1"}
OPEN_MPI_4 = OPEN_MPI | {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.96.0.1:34911"}
OPEN_MPI_5 = OPEN_MPI | {"PMIX_NAMESPACE": "prterun-my-node-4097@1"}


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        (STEP, None),  # an allocation without srun
        (STEP | {"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_NUM_NODES": "1"}, None),  # an interactive one
        ({"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}, None),
        (STEP | {"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "2"}, {"cluster_detection_method": "slurm"}),
        (OPEN_MPI_4 | {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"}, {"cluster_detection_method": "ompi"}),
        (
            OPEN_MPI_5 | {"OMPI_COMM_WORLD_LOCAL_SIZE": "2"},
            {
                "cluster_detection_method": "deactivate",
                "coordinator_address": "my-node:61441",
                "num_processes": 4,
                "process_id": 3,
                "local_device_ids": [1],
            },
        ),
        # mpirun in a Slurm job: its own numbers count, not those of the step that starts its daemons.
        (OPEN_MPI_4 | STEP | {"SLURM_STEP_NUM_TASKS": "2"}, {"cluster_detection_method": "ompi"}),
    ],
)
def test_processes_connect_if_their_launcher_has_started_several(environment, expected):
    assert _distributed_arguments(None, environment) == expected
    assert _distributed_arguments(DistributedConfig("a:1", 1, 0), environment) is None


@pytest.mark.parametrize(
    "environment",
    [
        STEP | {"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "4"},
        STEP | {"SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NUM_NODES": "1", "CUDA_VISIBLE_DEVICES": "0"},
        OPEN_MPI_4 | {"OMPI_COMM_WORLD_LOCAL_SIZE": "1"},
        OPEN_MPI_5 | {"OMPI_COMM_WORLD_LOCAL_SIZE": "1"},
    ],
)
def test_a_process_uses_all_gpus_that_only_it_sees(environment):
    assert _distributed_arguments(None, environment)["local_device_ids"] == []
    assert "local_device_ids" not in _distributed_arguments(None, environment | {"JAX_LOCAL_DEVICE_IDS": "2"})


def test_a_user_may_name_the_coordinator_under_open_mpi_5():
    unknown = OPEN_MPI | {"PMIX_NAMESPACE": "another"}
    with pytest.raises(UserError, match="JAX_COORDINATOR_ADDRESS=HOST:PORT"):
        _distributed_arguments(None, unknown)
    named = _distributed_arguments(None, unknown | {"JAX_COORDINATOR_ADDRESS": "a:1"})
    assert "coordinator_address" not in named  # JAX reads it itself
    at_port = _distributed_arguments(None, OPEN_MPI_5 | {"JAX_COORDINATOR_PORT": "5"})
    assert at_port["coordinator_address"] == "my-node:5"


@pytest.mark.parametrize(
    ("values", "key"),
    [
        (("host", 2, 0), "coordinator"),
        ((":80", 2, 0), "coordinator"),
        (("host:port", 2, 0), "coordinator"),
        (("host:65536", 2, 0), "coordinator"),
        (("host:80", 0, 0), "num_processes"),
        (("host:80", 2, 2), "process_id"),
        (("host:80", 2, -1), "process_id"),
    ],
)
def test_a_distributed_value_out_of_range_is_refused(values, key):
    with pytest.raises(UserError, match=rf"system\.distributed\.{key}"):
        DistributedConfig(*values)


def test_a_config_file_names_the_processes():
    overrides = ["system.distributed.coordinator=a:1", "system.distributed.num_processes=2"]
    config = load_config("configs/pure_cnn_small.yaml", [*overrides, "system.distributed.process_id=1"])
    assert config.system == SystemConfig(distributed=DistributedConfig("a:1", 2, 1))
    with pytest.raises(UserError, match="process_id"):
        load_config("configs/pure_cnn_small.yaml", overrides)
