"""Writes checkpoints beside the training, each whole or not at all."""

import contextlib
import shutil
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import NamedTuple, Self

import jax
import numpy as np
import orbax.checkpoint as ocp
from rich.console import Console

from BC_training.common.decode import Decoding
from BC_training.common.errors import UserError
from BC_training.common.files import disk_full_is_user_error, sync, sync_all
from BC_training.training.checkpoint import (
    FORMAT_VERSION,
    CheckpointMeta,
    is_good,
    local_only,
    state_items,
    verify,
    write_checksums,
)
from BC_training.training.decoding_file import write_decoding
from BC_training.training.run_folder import PARTIAL, REPLACED, newest, orbax_path, reason, step_numbers, tidy
from BC_training.training.train_state import TrainState, Tree

_SPACE_MARGIN = 1.5  # bytes on disk for a byte of state, with metadata and some to spare
_RETRY = 30.0  # seconds from a save that found the disk full to the next try


class _Snapshot(NamedTuple):
    items: dict[str, Tree]  # NumPy arrays
    meta: CheckpointMeta
    decoding: Decoding


class CheckpointWriter:
    """Keeps the last ``keep_last`` checkpoints of a run, whose lock this process holds, and the best one.

    A thread writes them. A disk that is full, or fails, does not end the training as long as a good checkpoint is
    there: what could not be written is tried again, and ``console`` shows both.
    """

    def __init__(self, run: Path, keep_last: int, console: Console):
        self._run, self._keep, self._console = run, {"best": 1, "last": keep_last}, console
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._owed: dict[str, _Snapshot] = {}  # by folder; what is not written yet
        self._writing: Future[None] | None = None
        self._failure: UserError | None = None  # why the last save failed
        self._failed_at = 0.0
        for folder in self._keep:
            (run / folder).mkdir(exist_ok=True)
            self._remove_older(folder)  # a training killed between a commit and this has left one too many

    def save(self, state: TrainState, meta: CheckpointMeta, decoding: Decoding, is_best: bool) -> None:
        """Begins to save ``state``; the next step may donate its buffers."""
        self._wait()
        copies = jax.tree.map(lambda x: np.array(x.addressable_data(0)), state_items(state))
        snapshot = _Snapshot(copies, meta, decoding)
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
        """Waits for the save under way and returns the last checkpoint's folder, or None where a disk did not take it.

        Raises:
            UserError: it cannot be saved and no good checkpoint is there.
        """
        self._wait()
        return None if self._owed else self._run / "last" / str(step_numbers(self._run / "last")[-1])

    def finish(self) -> None:
        """Waits until everything is written; raises a UserError where that cannot be."""
        self._wait()
        if self._owed:
            self._writing = self._pool.submit(self._write)
            self._wait()
        if self._owed:
            steps = ", ".join(sorted({str(snapshot.meta.step) for snapshot in self._owed.values()}))
            raise UserError(
                f"step {steps} could not be saved, {newest(self._run)}: {self._failure}, and run the same command again"
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._pool.shutdown()
        with contextlib.suppress(OSError):
            tidy(self._run)  # Orbax may write on for a moment after it has failed

    def _wait(self) -> None:
        """Waits for the save that is under way, and prints where it fails or works again."""
        if self._writing is None:
            return
        try:
            self._writing.result()
        except UserError as error:
            steps = [self._run / folder / str(n) for folder in self._keep for n in step_numbers(self._run / folder)]
            if not any(map(is_good, steps)):
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
            needed = _SPACE_MARGIN * sum(x.nbytes for x in jax.tree.leaves(snapshot.items))
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
                raise UserError(f"cannot write to {self._run / folder} ({reason(error)}): see to the disk") from error
            del self._owed[folder]

    def _commit(self, folder: Path, snapshot: _Snapshot) -> None:
        partial, final = folder / f"{PARTIAL}{snapshot.meta.step}", folder / str(snapshot.meta.step)
        _remove_partial(folder)
        try:
            _write_items(partial, snapshot)
            write_checksums(partial)
            write_decoding(partial, snapshot.decoding)
            sync_all(partial)
            verify(partial)  # before one that is good is removed
            replaced = folder / f"{REPLACED}{snapshot.meta.step}"
            if final.exists():  # the same step was saved before its epoch was evaluated
                final.rename(replaced)
            partial.rename(final)
            sync(folder)
            shutil.rmtree(replaced, ignore_errors=True)
        finally:
            _remove_partial(folder)
        self._remove_older(folder.name)

    def _remove_older(self, folder: str) -> None:
        removed = self._run / folder / f"{PARTIAL}removed"
        for number in step_numbers(self._run / folder)[: -self._keep[folder]]:
            removed.with_name(str(number)).rename(removed)  # at once gone, or not at all
            shutil.rmtree(removed)


def _remove_partial(folder: Path) -> None:
    for leftover in folder.glob(f"{PARTIAL}*"):
        shutil.rmtree(leftover, ignore_errors=True)


def _write_items(folder: Path, snapshot: _Snapshot) -> None:
    options = local_only()
    arrays = {name: ocp.args.StandardSave(tree) for name, tree in snapshot.items.items()}  # pyright: ignore[reportCallIssue]
    meta = ocp.args.JsonSave(snapshot.meta.to_dict() | {"format_version": FORMAT_VERSION})  # pyright: ignore[reportCallIssue]
    handler = ocp.CompositeCheckpointHandler(composite_options=ocp.CompositeOptions(multiprocessing_options=options))
    with ocp.Checkpointer(handler, multiprocessing_options=options) as checkpointer:
        checkpointer.save(orbax_path(folder), args=ocp.args.Composite(**arrays, meta=meta))
