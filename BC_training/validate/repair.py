"""Writes what is good of a dataset into a new one; the original is only read."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zarr
from rich.console import Console

from BC_training.common.errors import UserError
from BC_training.common.files import disk_full_is_user_error
from BC_training.common.storage.array_info import as_float32
from BC_training.common.storage.store import episode_number, is_remote
from BC_training.common.storage.writer import EpisodeWriter, recording
from BC_training.common.storage.zarr_groups import EpisodeInfo
from BC_training.runtime.workers import run_tasks
from BC_training.validate.scan import Fault, open_rows, read_actions, read_blocks, read_rows

MIN_FRAMES = 2  # one frame shows no play


@dataclass(frozen=True)
class Plan:
    """What to keep of an episode: its first ``frames`` frames, all of them if it has no error.

    ``info`` is None and ``frames`` 0 where nothing can be kept; ``reasons`` are its errors.
    """

    name: str
    info: EpisodeInfo | None
    frames: int
    reasons: list[str]


def report_file(out: Path) -> Path:
    """Beside the dataset: readers of zarr complain of a file in it that is none of theirs."""
    return out.with_name(f"{out.name}.repair.json")


def free_folder(address: str | Path) -> Path:
    """``address`` as the folder of a new dataset.

    Raises:
        UserError: it is not local, or taken.
    """
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


def repair(
    source: str, root: dict[str, Any], plans: list[Plan], out: Path, workers: int, console: Console
) -> dict[str, Any]:
    """Writes ``out``, and its report beside it.

    Episodes keep their number, attributes and every bit of their arrays; "repaired_from" and
    "repaired_from_frames" say which they were and how long.

    Args:
        source: the address of the original, for the report.
        out: from ``free_folder``.
        root: the original's attributes.

    Returns:
        The report.

    Raises:
        UserError: no episode can be kept, the original cannot be read any more or
            the disk is full.
    """
    kept = [(plan.info, plan.frames) for plan in plans if plan.info is not None and plan.frames >= MIN_FRAMES]
    if not kept:
        raise UserError(f"{source} has no episode of which {MIN_FRAMES} frames can be kept: {out} is not written")
    keys, attributes = tuple(root["keys"]), tuple(root.get("attributes") or ())
    with disk_full_is_user_error(out), recording(out, keys, attributes):
        group = zarr.open_group(out, mode="r+")
        new = dict(group.attrs)
        group.attrs.put({**root, **new, "repaired_from": source})
        run_tasks(_Copier, (out, root, source), kept, workers, console, title="writing", unit=("frames", lambda n: n))
    report = {
        "source": source,
        "dataset": str(out),
        "episodes": [_entry(plan) for plan in plans],
    }
    report |= {f: sum(e["what"] == f for e in report["episodes"]) for f in ("whole", "cut", "left out")}
    report_file(out).write_text(json.dumps(report, indent=2) + "\n")
    console.print(
        f"wrote {out}: {report['whole']} episodes whole, {report['cut']} cut, {report['left out']} left out; "
        f"{report_file(out)} says which and why",
        soft_wrap=True,
    )
    return report


def _entry(plan: Plan) -> dict[str, Any]:
    original = _length(plan.info)
    kept = plan.frames if plan.frames >= MIN_FRAMES else 0
    what = "left out" if not kept else "whole" if kept == original else "cut"
    why = plan.reasons or ([] if kept else [f"fewer than {MIN_FRAMES} frames"])
    return {"episode": plan.name, "what": what, "frames": kept, "of": original, "why": why}


def _length(info: EpisodeInfo | None) -> int:
    """Frames of the longest array; what is longer than the others is cut, too."""
    return 0 if info is None else max(array.shape[0] for array in info.arrays.values())


class _Copier:
    """One process's share of the work."""

    def __init__(self, out: Path, root: dict[str, Any], source: str):
        self._out, self._root, self._source = out, root, source

    def run(self, task: tuple[EpisodeInfo, int]) -> int:
        """Copies the first frames of an episode, ``task`` = (episode, frames); returns their number."""
        info, length = task
        writer = EpisodeWriter(self._out, episode_number(info.name))
        try:
            self._copy(info, length, writer)
            writer.commit(
                {
                    **{key: value for key, value in info.attrs.items() if key != "frame_count"},
                    "repaired_from": info.name,
                    "repaired_from_frames": _length(info),
                }
            )
        except BaseException:
            writer.abort()
            raise
        return writer.frame_count

    def _copy(self, info: EpisodeInfo, length: int, writer: EpisodeWriter) -> None:
        actions, faults = read_actions(info, length, self._root)
        self._require(info, faults)
        state = None
        if "state" in info.arrays:
            state, faults = read_rows(info, "state", length)
            self._require(info, faults)
            state, _ = as_float32(state)
        frames = open_rows(info, "frames")
        if isinstance(frames, tuple):
            raise UserError(f"{self._source}/{info.name}: {frames[1]}: it has changed meanwhile; run it again")
        for start, block, faults in read_blocks(info, frames, 0, length):
            self._require(info, faults)
            for row, frame in enumerate(block, start):
                writer.append(frame, actions[row], None if state is None else state[row])

    def _require(self, info: EpisodeInfo, faults: dict[int, Fault]) -> None:
        if faults:
            raise UserError(
                f"{self._source}/{info.name}: frame {min(faults)} can no longer be read; remove what was written "
                "and run it again"
            )

    def close(self) -> None:
        pass
