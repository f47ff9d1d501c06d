"""The configuration's section on logs, and what a run is called."""

import os
from dataclasses import dataclass, field

from BC_training.common.errors import require, require_at_least
from BC_training.common.files import expand_fields

_LONGEST = 200  # bytes of a run's name: file systems take 255, and there are folders "NAME-round3" and "NAME.1"


@dataclass(frozen=True)
class WandbConfig:
    enabled: bool = True  # online with a key, else offline; never prompts
    project: str = "BC_training"
    entity: str | None = None
    tags: tuple[str, ...] = ()


@dataclass(frozen=True)
class LoggingConfig:
    run_name: str | None = None  # null: the config file's stem
    log_dir: str = "BC_training/logs"
    log_every_steps: int = 20
    report: bool = True  # write report.html at the end, the page of ``visualize report``
    wandb: WandbConfig = field(default_factory=WandbConfig)

    def __post_init__(self) -> None:
        expand_fields(self, "logging", "log_dir")
        require_at_least(1, self, "logging", "log_every_steps")
        name = self.run_name
        if name is None:
            return
        is_name = name not in ("", ".", "..") and name.isprintable() and not set(name) & set("/\\")
        require(is_name, "logging.run_name", repr(name)[1:-1], "a folder name, without slashes")
        size = len(name.encode())
        require(size <= _LONGEST, "logging.run_name", f"{name[:20]}...", f"at most {_LONGEST} bytes, it has {size}")
        if os.name == "nt":
            is_name = not set(name) & set('<>:"|?*') and name[-1] not in ". "
            require(is_name, "logging.run_name", name, 'on Windows without <>:"|?*, and no dot at its end')
