"""Writes checkpoints beside the training, each whole or not at all."""

import contextlib
import itertools
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from rich.console import Console

from BC_training.common.errors import UserError, first_line
from BC_training.common.files import disk_full_is_user_error, locked
from BC_training.common.schema import Config
from BC_training.training.checkpoint import FORMAT_VERSION, alone, is_good, state_items, verify, write_checksums
from BC_training.training.orbax_path import orbax_path, require_orbax_path
from BC_training.training.train_state import TrainState, Tree

_PARTIAL = ".partial-"
_REPLACED = ".replaced-"
_DAMAGED = "damaged-"
_SPACE_MARGIN = 1.5  # bytes on disk for a byte of state, with metadata and some to spare
_RETRY = 30.0  # seconds from a save that found the disk full to the next try


class _Snapshot(NamedTuple):
    step: int
    items: dict[str, Tree]  # NumPy arrays
    meta: dict[str, Any]

    @property
    def nbytes(self) -> int:
        return sum(x.nbytes for x in jax.tree.leaves(self.items))


def run_folders(config: Config) -> tuple[Path, Path]:
    """Where a run's checkpoints and logs are; they need not exist."""
    name = config.logging.run_name
    assert name is not None, "load_config fills it in"
    return Path(config.training.checkpoint_dir) / name, Path(config.logging.log_dir) / name


@contextlib.contextmanager
def lock_run(*folders: Path) -> Iterator[None]:
    """Creates a run's folders, of checkpoints and of logs, if need be, and keeps other trainings out of them.

    Raises:
        UserError: another training is in one, or it cannot be created or written to.
    """
    with contextlib.ExitStack() as stack:
        for folder in dict.fromkeys(folders):
            require_orbax_path(folder)
            make_folder(folder)
            busy = f"another training is running in {folder}: wait for it, stop it, or choose another logging.run_name"
            stack.enter_context(locked(folder / ".lock", busy))
            _tidy(folder)
        yield


def make_folder(folder: Path) -> None:
    """Creates a folder of a run, if need be.

    Raises:
        UserError: it cannot be created or written to.
    """
    remedy = "choose another training.checkpoint_dir or logging.log_dir"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the folder {folder}: {error.strerror}; {remedy}") from error
    for written in (folder, *(folder / name for name in ("best", "last") if (folder / name).exists())):
        if not os.access(written, os.R_OK | os.W_OK | os.X_OK):
            raise UserError(f"cannot write to the folder {written}: see to its permissions, or {remedy}")


def move_aside(config: Config) -> str:
    """Renames the folders of an earlier run, both to the same new name, which is returned.

    Raises:
        UserError: a training is running in it.
    """
    folders = run_folders(config)
    names = (f"{folders[0].name}.{n}" for n in itertools.count(1))
    aside = next(n for n in names if not any(folder.with_name(n).exists() for folder in folders))
    there = [folder for folder in dict.fromkeys(folders) if folder.exists()]
    with contextlib.ExitStack() as stack:
        for folder in there:
            stack.enter_context(lock_run(folder))
        for folder in there:
            folder.rename(folder.with_name(aside))
    return aside


def _tidy(run: Path) -> None:
    """Removes what a training that was killed left unfinished."""
    for replaced in run.glob(f"*/{_REPLACED}*"):
        final = replaced.with_name(replaced.name.removeprefix(_REPLACED))
        if not final.exists():
            replaced.rename(final)
    for leftover in (*run.glob(f"*/{_PARTIAL}*"), *run.glob(f"*/{_REPLACED}*")):
        shutil.rmtree(leftover)


def copy_step(step: Path, target: Path) -> None:
    """Copies a checkpoint to ``target``, whole or not at all.

    Raises:
        UserError: it cannot be read, or not written there.
    """
    partial = target.with_name(_PARTIAL + target.name)
    shutil.rmtree(partial, ignore_errors=True)
    try:
        shutil.copytree(step, partial)
        _sync(partial)
        partial.rename(target)
        _sync(target.parent, deep=False)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise UserError(f"cannot copy {step} to {target}: {_reason(error)}; run the same command again") from error


def set_aside_damaged(step: Path) -> None:
    """Keeps a damaged checkpoint from being found again."""
    target = step.with_name(_DAMAGED + step.name)
    shutil.rmtree(target, ignore_errors=True)
    step.rename(target)


def newest(run: Path) -> str:
    """What to say of a run's newest checkpoint."""
    steps = _steps(run / "last") + _steps(run / "best")
    return f"the checkpoint of step {max(steps)} is kept" if steps else "nothing was saved yet"


class CheckpointWriter:
    """Keeps the last N checkpoints of a run and the best one, written by a thread.

    A disk that is full, or fails, does not end the training: what could not be written is tried
    again, as long as a good checkpoint is there.

    Args:
        run: the run's folder, held by this process.
        keep_last: N.
        console: told of disks that are full, and of what was written after all.
    """

    def __init__(self, run: Path, keep_last: int, console: Console):
        self._run, self._keep, self._console = run, {"best": 1, "last": keep_last}, console
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._owed: dict[str, _Snapshot] = {}  # by folder; what is not written yet
        self._writing: Future[None] | None = None
        self._failure: UserError | None = None  # of the last save
        self._failed_at = 0.0
        for folder in self._keep:
            (run / folder).mkdir(exist_ok=True)
            self._remove_older(folder)  # one killed between a commit and this has left one too many

    def save(self, state: TrainState, meta: dict[str, Any], is_best: bool) -> None:
        """Begins to save ``state``; the next step may donate its buffers.

        Args:
            meta: what ``Checkpoint`` reads back, JSON types.
        """
        self._wait()  # for the one before
        copies = jax.tree.map(lambda x: np.array(x.addressable_data(0)), state_items(state))
        step = int(state.step)
        snapshot = _Snapshot(step, copies, {"format_version": FORMAT_VERSION, "step": step, **meta})
        # The best first: killed between the two, a run goes on from the best, not from before it.
        owed = {"best": snapshot} if is_best else {k: v for k, v in self._owed.items() if k == "best"}
        self._owed = owed | {"last": snapshot}
        self._writing = self._pool.submit(self._write)

    def poll(self) -> None:
        """Looks whether a save has failed, and tries it again after a while.

        Raises:
            UserError: it cannot be saved and no good checkpoint is there.
        """
        if self._writing is not None and self._writing.done():
            self._wait()
        if self._writing is None and self._failure is not None and monotonic() - self._failed_at > _RETRY:
            self._writing = self._pool.submit(self._write)

    def settle(self) -> Path | None:
        """Waits for the save under way; the last checkpoint's folder, or None where a disk did not take it.

        Raises:
            UserError: it cannot be saved and no good checkpoint is there.
        """
        self._wait()
        return None if self._owed else self._run / "last" / str(self._numbers("last")[-1])

    def finish(self) -> None:
        """Waits until everything is written.

        Raises:
            UserError: it cannot be.
        """
        self._wait()
        if self._owed:
            self._writing = self._pool.submit(self._write)
            self._wait()
        if self._owed:
            steps = ", ".join(sorted({str(snapshot.step) for snapshot in self._owed.values()}))
            raise UserError(
                f"step {steps} could not be saved, {newest(self._run)}: {self._failure}, and run the same command again"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown()
        with contextlib.suppress(OSError):
            _tidy(self._run)  # Orbax may write on for a moment after it has failed

    def _wait(self) -> None:
        """Waits for the save that is under way, and tells what became of it."""
        if self._writing is None:
            return
        try:
            self._writing.result()
        except UserError as error:
            if not any(is_good(self._run / folder / str(n)) for folder in self._keep for n in self._numbers(folder)):
                raise
            if self._failure is None:
                self._say(f"{error}; training goes on, {newest(self._run)}, and the save is tried again")
            self._failure, self._failed_at = error, monotonic()
        else:
            if self._failure is not None:
                self._say(f"checkpoints can be saved again: {newest(self._run)}")
            self._failure = None
        finally:
            self._writing = None

    def _say(self, message: str) -> None:
        self._console.print(message, style="yellow", soft_wrap=True, markup=False)

    def _write(self) -> None:
        for folder, snapshot in list(self._owed.items()):
            needed = snapshot.nbytes * _SPACE_MARGIN
            if (free := shutil.disk_usage(self._run).free) < needed:
                # Orbax writes in threads that each print what went wrong: better not to begin.
                raise UserError(
                    f"the disk that holds {self._run} is full ({free / 1e6:.0f} MB free, a checkpoint needs "
                    f"{needed / 1e6:.0f} MB): free some space"
                )
            try:
                with disk_full_is_user_error(self._run):
                    self._commit(self._run / folder, snapshot)
            except OSError as error:
                raise UserError(f"cannot write to {self._run / folder} ({_reason(error)}): see to the disk") from error
            del self._owed[folder]

    def _commit(self, folder: Path, snapshot: _Snapshot) -> None:
        partial, final = folder / f"{_PARTIAL}{snapshot.step}", folder / str(snapshot.step)
        _remove_partial(folder)
        try:
            _write_items(partial, snapshot)
            write_checksums(partial)
            _sync(partial)
            verify(partial)  # before one that is good is removed
            replaced = folder / f"{_REPLACED}{snapshot.step}"
            if final.exists():  # of the same step, before its epoch was evaluated
                final.rename(replaced)
            partial.rename(final)
            _sync(folder, deep=False)
            shutil.rmtree(replaced, ignore_errors=True)
        finally:
            _remove_partial(folder)
        self._remove_older(folder.name)

    def _remove_older(self, folder: str) -> None:
        removed = self._run / folder / f"{_PARTIAL}removed"
        for number in self._numbers(folder)[: -self._keep[folder]]:
            removed.with_name(str(number)).rename(removed)  # at once gone, or not at all
            shutil.rmtree(removed)

    def _numbers(self, folder: str) -> list[int]:
        return _steps(self._run / folder)


def _reason(error: OSError) -> str:
    return error.strerror or first_line(error)


def _remove_partial(folder: Path) -> None:
    for leftover in folder.glob(f"{_PARTIAL}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _steps(folder: Path) -> list[int]:
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit())


def _write_items(folder: Path, snapshot: _Snapshot) -> None:
    options = alone()
    arrays = {name: ocp.args.StandardSave(tree) for name, tree in snapshot.items.items()}  # pyright: ignore[reportCallIssue]
    meta = ocp.args.JsonSave(snapshot.meta)  # pyright: ignore[reportCallIssue]
    handler = ocp.CompositeCheckpointHandler(composite_options=ocp.CompositeOptions(multiprocessing_options=options))
    with ocp.Checkpointer(handler, multiprocessing_options=options) as checkpointer:
        checkpointer.save(orbax_path(folder), args=ocp.args.Composite(**arrays, meta=meta))


def _sync(path: Path, deep: bool = True) -> None:
    """Has the disk hold a folder, and with ``deep`` all that is in it, before what follows."""
    for entry in (path, *(path.rglob("*") if deep else ())):
        descriptor = os.open(entry, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
