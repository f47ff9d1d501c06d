"""Writes a new dataset of what is good in another, which is only read."""

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from rich.console import Console

from BC_training.common.action import Action
from BC_training.common.errors import UserError
from BC_training.common.files import disk_full_is_user_error, write_whole
from BC_training.common.storage.metadata import NAMED_BY, EpisodeInfo, Fault
from BC_training.common.storage.reader import as_float32, frames_key
from BC_training.common.storage.store import episode_number, is_remote
from BC_training.common.storage.writer import EpisodeWriter, Names, recording
from BC_training.runtime.workers import run_tasks
from BC_training.validate.scan import open_rows, read_actions, read_blocks, read_rows

MIN_FRAMES = 2  # one frame shows no play


@dataclass(frozen=True)
class Plan:
    """What to keep of an episode: its first ``frames`` frames, all of them if it has no error.

    ``info`` is None and ``frames`` 0 where nothing can be kept; ``reasons`` are the episode's errors.
    """

    name: str
    info: EpisodeInfo | None
    frames: int
    reasons: list[str]

    @property
    def original(self) -> int:
        """Frames of the longest array: rows that other arrays lack are cut, too."""
        return 0 if self.info is None else max(array.shape[0] for array in self.info.arrays.values())

    @property
    def kept(self) -> int:
        return self.frames if self.info is not None and self.frames >= MIN_FRAMES else 0

    @property
    def what(self) -> str:
        return "left out" if not self.kept else "whole" if self.kept == self.original else "cut"

    def to_dict(self) -> dict[str, Any]:
        why = self.reasons or ([] if self.kept else [f"fewer than {MIN_FRAMES} frames"])
        return {"episode": self.name, "what": self.what, "frames": self.kept, "of": self.original, "why": why}


def report_file(out: Path) -> Path:
    """A file beside the dataset: readers of zarr complain of a foreign file inside it."""
    return out.with_name(f"{out.name}.repair.json")


def free_folder(address: str | Path) -> Path:
    """``address`` as the folder of a new dataset; a UserError where it is not local, or taken."""
    if is_remote(address):
        raise UserError(f"--repair {address}: a repaired dataset is written to a local folder; name one")
    out = Path(address)
    for path in (out, report_file(out)):
        if path.exists():
            raise UserError(
                f"{path} exists, nothing is overwritten: choose another --repair folder, or remove it first "
                "(a repair that was interrupted starts again)"
            )
    return out


def names_of(root: dict[str, Any]) -> Names:
    """The names in a dataset's attributes."""
    return Names(*(tuple(root.get(name) or ()) for name in Names._fields))


def repair(
    source: str, root: dict[str, Any], plans: list[Plan], out: Path, workers: int, console: Console
) -> dict[str, Any]:
    """Writes ``out``, and beside it the report, which it returns.

    Episodes keep their number, attributes and every bit of their arrays; their attributes
    "repaired_from" and "repaired_from_frames" give the original's name and length.

    Args:
        source: the address of the original, for the report.
        root: the original's attributes.
        out: from ``free_folder``.

    Raises:
        UserError: no episode can be kept, the original can no longer be read, or the disk is full.
    """
    kept = [plan for plan in plans if plan.kept]
    if not kept:
        raise UserError(f"{source} has no episode of which {MIN_FRAMES} frames can be kept: {out} is not written")
    with disk_full_is_user_error(out), recording(out, names_of(root)):
        group = zarr.open_group(out, mode="r+")
        new = dict(group.attrs)
        group.attrs.put({**root, **new, "repaired_from": source})
        run_tasks(_Copier, (out, root, source), kept, workers, console, title="writing", unit=("frames", lambda n: n))
    counts = {what: sum(plan.what == what for plan in plans) for what in ("whole", "cut", "left out")}
    report = {"source": source, "dataset": str(out), "episodes": [plan.to_dict() for plan in plans], **counts}
    write_whole(report_file(out), json.dumps(report, indent=2) + "\n")
    console.print(
        f"wrote {out}: {counts['whole']} episodes whole, {counts['cut']} cut, {counts['left out']} left out; "
        f"{report_file(out)} lists which and why",
        soft_wrap=True,
    )
    return report


class _Copier:
    """One process's share of the work."""

    def __init__(self, out: Path, root: dict[str, Any], source: str):
        self._out, self._root, self._source = out, root, source

    def run(self, task: Plan) -> int:
        """Copies the frames of an episode that are kept; returns their number."""
        info = task.info
        assert info is not None
        writer = EpisodeWriter(self._out, episode_number(info.name))
        try:
            self._copy(info, task.kept, writer)
            attrs = {**info.attrs, "repaired_from": info.name, "repaired_from_frames": task.original}
            with contextlib.ExitStack() as stack:
                is_video = info.arrays["frames"].is_video
                writer.commit(attrs, [stack.enter_context(info.store.open(frames_key(info)))] if is_video else [])
        except BaseException:
            writer.abort()
            raise
        return writer.frame_count

    def _copy(self, info: EpisodeInfo, length: int, writer: EpisodeWriter) -> None:
        columns: dict[str, np.ndarray] = {"actions": np.zeros((length, 0), bool), "axes": np.zeros((length, 0))}
        for name in (name for name in NAMED_BY if name in info.arrays):
            if name == "actions":
                columns[name], faults = read_actions(info, length, self._root)
            else:
                values, faults = read_rows(info, name, length)
                columns[name], _ = as_float32(values)
            self._require(info, faults)
        actions, axes, state = columns["actions"], columns["axes"], columns.get("state")
        if info.arrays["frames"].is_video:  # ``commit`` copies it
            for row in range(length):
                writer.append(None, Action(actions[row], axes[row]), None if state is None else state[row])
            return
        frames = open_rows(info, "frames")
        if isinstance(frames, Fault):
            raise UserError(f"{self._source}/{info.name}: {frames.message}: it has changed meanwhile; run it again")
        for start, block, faults in read_blocks(info, frames, 0, length):
            self._require(info, faults)
            for row, frame in enumerate(block, start):
                writer.append(frame, Action(actions[row], axes[row]), None if state is None else state[row])

    def _require(self, info: EpisodeInfo, faults: dict[int, Fault]) -> None:
        if faults:
            raise UserError(
                f"{self._source}/{info.name}: frame {min(faults)} can no longer be read; remove what was written "
                "and run it again"
            )

    def close(self) -> None:
        pass
