"""A run's folders, for checkpoints and for logs: created, locked, tidied, moved aside; and whole steps in them."""

import contextlib
import fnmatch
import itertools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etils import epath

from BC_training.common.errors import UserError, first_line
from BC_training.common.files import locked, sync, sync_all
from BC_training.common.schema import Config

PARTIAL = ".partial-"  # begins the name of a step that is being written
REPLACED = ".replaced-"  # begins the name of a step that is being replaced
_DAMAGED = "damaged-"
_LOCK = ".lock"
_EtilsPath: Any = type(epath.Path())  # the class for this system


def run_folders(config: Config) -> tuple[Path, Path]:
    """Where a run's checkpoints and logs are; they need not exist."""
    name = config.logging.run_name
    assert name is not None, "load_config fills it in"
    return Path(config.training.checkpoint_dir) / name, Path(config.logging.log_dir) / name


@contextlib.contextmanager
def lock_run(*folders: Path) -> Iterator[None]:
    """Creates a run's folders, for checkpoints and for logs, if need be, and keeps other trainings out of them.

    Raises:
        UserError: another training is in one, or it cannot be created or written to.
    """
    with contextlib.ExitStack() as stack:
        for folder in dict.fromkeys(folders):
            _require_orbax_path(folder)
            make_folder(folder)
            busy = f"another training is running in {folder}: wait for it, stop it, or choose another logging.run_name"
            stack.enter_context(locked(folder / _LOCK, busy))
            tidy(folder)
        yield


def make_folder(folder: Path) -> None:
    """Creates a folder of a run, if need be; raises a UserError if it cannot be created or written to."""
    remedy = "choose another training.checkpoint_dir or logging.log_dir"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the folder {folder}: {error.strerror}; {remedy}") from error
    for written in (folder, *(folder / name for name in ("best", "last") if (folder / name).exists())):
        if not os.access(written, os.R_OK | os.W_OK | os.X_OK):
            raise UserError(f"cannot write to the folder {written}: see to its permissions, or {remedy}")


def move_aside(config: Config) -> str:
    """Renames both folders of an earlier run to a new name and returns it; raises a UserError if a training runs."""
    folders = run_folders(config)
    names = (f"{folders[0].name}.{n}" for n in itertools.count(1))
    aside = next(n for n in names if not any(folder.with_name(n).exists() for folder in folders))
    there = [folder for folder in dict.fromkeys(folders) if folder.exists()]
    with contextlib.ExitStack() as stack:
        for folder in there:
            stack.enter_context(lock_run(folder))
        for folder in there:
            folder.rename(folder.with_name(aside))
            (folder.with_name(aside) / _LOCK).unlink()
    return aside


def tidy(run: Path) -> None:
    """Removes what a training that was killed left unfinished."""
    for replaced in run.glob(f"*/{REPLACED}*"):
        final = replaced.with_name(replaced.name.removeprefix(REPLACED))
        if not final.exists():
            replaced.rename(final)
    for leftover in (*run.glob(f"*/{PARTIAL}*"), *run.glob(f"*/{REPLACED}*")):
        shutil.rmtree(leftover)


def copy_step(step: Path, target: Path) -> None:
    """Copies a checkpoint to ``target``, whole or not at all; raises a UserError where that fails."""
    partial = target.with_name(PARTIAL + target.name)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        shutil.copytree(step, partial)
        sync_all(partial)
        partial.rename(target)
        sync(target.parent)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise UserError(f"cannot copy {step} to {target}: {reason(error)}; run the same command again") from error


def set_aside_damaged(step: Path) -> None:
    """Keeps a damaged checkpoint from being found again."""
    target = step.with_name(_DAMAGED + step.name)
    shutil.rmtree(target, ignore_errors=True)
    step.rename(target)


def newest(run: Path) -> str:
    """Describes a run's newest checkpoint, for messages."""
    numbers = step_numbers(run / "last") + step_numbers(run / "best")
    return f"the checkpoint of step {max(numbers)} is kept" if numbers else "nothing was saved yet"


def step_numbers(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())


def reason(error: OSError) -> str:
    return error.strerror or first_line(error)


class _Literal(_EtilsPath):
    """A local folder, whatever its name: etils takes "v[2]" for a pattern, and /s3/ and /gs/ for addresses."""

    _uri_scheme = None

    def glob(self, pattern: str) -> Iterator[Any]:
        return (entry for entry in self.iterdir() if fnmatch.fnmatchcase(entry.name, pattern))


def orbax_path(folder: Path) -> Any:
    """``folder``, absolute, for Orbax."""
    return _Literal(folder.resolve())


def _require_orbax_path(folder: Path) -> None:
    """Raises a UserError for a folder that TensorStore, below Orbax, would take for another."""
    if os.sep != "\\" and "\\" in str(folder.resolve()):
        raise UserError(
            f"checkpoints cannot be kept in {folder.resolve()}: TensorStore takes the \\ in its name for a /; "
            "rename the folder, or choose another training.checkpoint_dir"
        )
