"""Recordings that are not zarr yet, made into a dataset.

Each kind of recording is a module with a function ``open_source(path, options) -> Source``; see ``source.py``.
"""

import importlib
import os
from pathlib import Path

import numpy as np
from rich.console import Console

from BC_training.common.errors import UserError, unknown
from BC_training.common.files import disk_full_is_user_error
from BC_training.common.storage.writer import existing_episodes, is_unused, next_number, recording
from BC_training.convert import identity
from BC_training.convert.converter import Converter, frame_size, readable_digest
from BC_training.convert.source import Options, Source
from BC_training.runtime.workers import run_tasks

KINDS = {
    "sessions": "sessions",
    "lerobot": "lerobot",
    "minari": "hdf5",
    "robomimic": "hdf5",
    "doom-demo": "doom_demo",
}  # to the folder of its reader


def convert(source: Path, out: Path, options: Options, workers: int | None, console: Console) -> None:
    """Converts every recording at ``source``, in parallel processes, into the dataset ``out``.

    Recordings that are in ``out`` already are left out, so a run that was killed is continued by
    the same command. One that cannot be read does not keep the others from being written.

    Raises:
        UserError: the source cannot be read, nothing is in it, ``out`` holds other actions or
            another frame size, or some recordings were not converted (named, with the reason).
    """
    if options.kind not in KINDS:
        raise unknown("kind of recording", options.kind, KINDS)
    if not source.exists():
        raise UserError(f"no recordings at {source}: check the path")
    if options.kind == "sessions" and out.is_dir() and is_unused(out) and out.resolve().parent == source.resolve():
        raise UserError(f"{out} is an empty folder among the sessions and would count as one: remove it")
    module = importlib.import_module(f"BC_training.convert.{KINDS[options.kind]}.reader")
    opened: Source = module.open_source(source, options)
    if not opened.episodes:
        raise UserError(f"{source} holds no recordings of the kind '{options.kind}'")
    existing = existing_episodes(out)
    recordings = [
        (name, readable_digest(opened, name) if existing else None, opened.place(name)) for name in opened.episodes
    ]
    missing, told = identity.missing(source, recordings, [episode.attrs for episode in existing], out)
    if existing:
        there = len(opened.episodes) - len(missing)
        _say(console, f"{out}: {there} of {len(opened.episodes)} recordings are there")
    for line in told:
        _say(console, line)
    if not missing:
        return
    with recording(out, opened.keys, opened.attributes), disk_full_is_user_error(out):
        first = next_number(out)
        size = existing[0].arrays["frames"].shape[2:] if existing else options.size or frame_size(opened, missing)
        results = run_tasks(
            Converter,
            (opened, source, out, options.size, size),
            [(first + i, name) for i, name in enumerate(missing)],
            workers or os.cpu_count() or 1,
            console,
            title="converting",
            unit=("frames", lambda result: result["frames"]),
        )
    for note in getattr(opened, "notes", ()):
        _say(console, note)
    frames = sum(r["frames"] for r in results)
    for name, result in zip(missing, results, strict=True):
        for note in result["notes"]:
            _say(console, f"{name}: {note}")
    pressed = [r["pressed"] for r in results if r["pressed"] is not None]
    if pressed and not (ever := np.any(pressed, axis=0)).all():
        never = ", ".join(key for key, was in zip(opened.keys, ever, strict=True) if not was)
        _say(console, f"never pressed in what was converted: {never}")
    failed = [(name, r["error"]) for name, r in zip(missing, results, strict=True) if r["error"]]
    converted = sum(r["frames"] > 0 for r in results)
    _say(console, f"converted {converted} recordings, {frames:,} frames, into {out}")
    if failed:
        listed = "; ".join(f"{name}: {reason}" for name, reason in failed)
        raise UserError(f"{len(failed)} of {len(missing)} recordings of {source} were not converted ({listed})")


def _say(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, markup=False, emoji=False)  # paths may hold [brackets] and :words:
