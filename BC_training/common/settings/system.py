"""The configuration's section on the machine, and on the processes that train together."""

from dataclasses import dataclass
from typing import Literal

from BC_training.common.errors import require, require_at_least
from BC_training.common.settings.rules import FREE, setting


@dataclass(frozen=True)
class DistributedConfig:
    """One of several processes that train together; Slurm and Open MPI supply these values."""

    coordinator: str  # "host:port" of process 0
    num_processes: int
    process_id: int

    def __post_init__(self) -> None:
        host, _, port = self.coordinator.rpartition(":")
        is_address = bool(host) and port.isdecimal() and 0 < int(port) < 2**16
        require(is_address, "system.distributed.coordinator", self.coordinator, "HOST:PORT of process 0")
        require_at_least(1, self, "system.distributed", "num_processes")
        rule = f"0 to {self.num_processes - 1}, one less than num_processes"
        require(0 <= self.process_id < self.num_processes, "system.distributed.process_id", self.process_id, rule)


@dataclass(frozen=True)
class SystemConfig:
    seed: int = 0
    device: Literal["auto", "cpu", "gpu"] = setting("auto", FREE)
    workers: int | None = setting(None, FREE)  # processes that record and play; null: one a core
    deterministic: bool = setting(False, FREE)  # slower GPU programs that give the same bits in every run
    distributed: DistributedConfig | None = setting(None, FREE)

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**31, "system.seed", self.seed, "0 to 2^31 - 1")
        require(self.workers is None or self.workers >= 1, "system.workers", self.workers, "at least 1")
