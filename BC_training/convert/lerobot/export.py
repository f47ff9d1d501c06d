"""Exports a dataset to LeRobot's format v3.0, which LeRobot 0.4 and later load.

Each episode becomes a parquet file and an MP4 of its own. v3.0 also allows several episodes in a file, but with
one each, processes can work in parallel and a killed export can go on where it stopped.

The video is high-quality H.264 in 4:2:0, so frames change by a few grey levels. Everything else is kept exactly:
actions as float32, buttons (0 and 1) before axes; the state; and the rate. LeRobot declares ``fps`` a whole number but
also calculates correctly with a fraction (17.5).
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from itertools import accumulate, chain, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from BC_training.common.action import Action, at_rest
from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.common.files import disk_full_is_user_error, locked, write_whole
from BC_training.common.preprocess import resize_frames
from BC_training.common.storage.video_writer import LONGEST_SIDE, RATES, VideoWriter
from BC_training.common.storage.writer import Names, require_local
from BC_training.convert.lerobot.export_metadata import data_file, video_file, write_metadata
from BC_training.convert.lerobot.features import is_text
from BC_training.convert.source import Step, every_nth, print_line
from BC_training.runtime.workers import run_tasks

_CRF = 12  # 0 (lossless) to 51; 18 is considered visually lossless
_KEY_FRAME_EVERY = 2  # frames: LeRobot reads single frames in random order
_BLOCK = 32  # frames read at once
_PROGRESS = "progress"  # a folder in the unfinished export, with its settings and a file for each finished episode


def export(
    source: Path, out: Path, size: tuple[int, int] | None, fps: float | None, workers: int | None, console: Console
) -> None:
    """Writes the dataset ``source`` as the LeRobot dataset ``out``.

    The export is written to ``out`` with ".partial" appended and renamed when it is complete. The same command
    continues an export that was killed. Raises a UserError if ``out`` exists, an episode of ``source`` is damaged, the
    episodes' rates differ or are unknown, frames are to be left out whose axes may add up, the frames have an odd side,
    or an unfinished export with other settings is in the way.

    Args:
        size: (H, W) of the frames to write, in pixels; None keeps them.
        fps: frames per second to thin to; None keeps the recorded rate.
        workers: processes; None means one per core.
    """
    require_local(out)
    out = out.absolute()  # pyarrow and FFmpeg would take "a" in "a:b" for a protocol
    if not _is_unused(out):
        raise UserError(f"{out} exists and is no empty folder: remove it, or choose another folder")
    dataset = ZarrGameplayDataset(source)
    rate = _common_rate(dataset, fps)
    height, width = size or dataset.frame_size
    if height % 2 or width % 2:
        even = f"{max(8, height - height % 2)}x{max(8, width - width % 2)}"
        fault = f"frames of {height}x{width} have an odd side, which the video cannot have"
        raise UserError(f"{fault}: add --size {even}")
    if max(height, width) > LONGEST_SIDE:
        raise UserError(f"frames of {height}x{width} have a side above the video's {LONGEST_SIDE}: add --size")
    dataset.load_labels()
    if fps is not None:
        _require_thinnable(dataset, fps)
    lengths = [_thinned(e.length, e.attrs["fps"], fps) for e in dataset.episodes]
    starts = list(accumulate(lengths, initial=0))
    tasks = [_tasks(e.attrs, f"{source}/{e.name}") for e in dataset.episodes]
    task_names = list(dict.fromkeys(chain.from_iterable(tasks)))
    settings = {"source": str(source.resolve()), "episodes": [[e.name, e.length] for e in dataset.episodes]}
    settings |= {"fps": fps, "size": list(size) if size else None}
    with disk_full_is_user_error(out), _partial(out, settings) as folder:
        missing = [i for i in range(len(lengths)) if not _done(folder, i).exists()]
        if len(missing) < len(lengths):
            print_line(console, f"{folder}: {len(lengths) - len(missing)} of {len(lengths)} episodes are there")
        run_tasks(
            _Exporter,
            (source, folder, size, fps, rate),
            [(i, starts[i], task_names.index(tasks[i][0])) for i in missing],
            workers or os.cpu_count() or 1,
            console,
            title="exporting",
            unit=("frames", int),
        )
        histograms = [np.array(json.loads(_done(folder, i).read_bytes()), np.int64) for i in range(len(lengths))]
        write_metadata(
            folder,
            rate,
            (height, width),
            Names(dataset.action_names, dataset.axis_names, dataset.state_names),
            lengths,
            tasks,
            histograms,
        )
        if not _is_unused(out):
            raise UserError(f"{out} is there by now: move it away and run the same command again")
        shutil.rmtree(folder / _PROGRESS)
        if out.exists():
            out.rmdir()  # it is empty
        os.rename(folder, out)
    unlabelled = sum(int((~e.is_labelled).sum()) for e in dataset.episodes)
    if unlabelled:
        print_line(
            console, f"{unlabelled:,} of the recorded frames are a policy's own play, which LeRobot cannot tell apart"
        )
    print_line(console, f"exported {len(lengths)} episodes, {sum(lengths):,} frames, to {out}")


class _Exporter:
    """Exports episodes in one process."""

    def __init__(self, source: Path, folder: Path, size: tuple[int, int] | None, fps: float | None, rate: float):
        self._dataset = ZarrGameplayDataset(source)
        self._folder, self._size, self._fps, self._rate = folder, size, fps, rate

    def run(self, task: tuple[int, int, int]) -> int:
        """Exports (episode's position, its first frame's number, its task's number); returns the frame count."""
        episode, first, task_index = task
        steps = _steps(self._dataset, episode)
        if self._fps is not None:
            steps = every_nth(steps, self._dataset.episodes[episode].attrs["fps"], self._fps)
        actions, states = [], []
        histogram = np.zeros((3, 256), np.int64)

        def frames() -> Iterator[np.ndarray]:
            for frame, action, state in steps:
                actions.append(np.concatenate(action, dtype=np.float32))
                states.append(state)
                resized = frame if self._size is None else resize_frames(frame[None], self._size)[0]
                for channel in range(3):
                    histogram[channel] += np.bincount(resized[channel].ravel(), minlength=256)
                yield resized

        video = self._folder / video_file(episode)
        video.parent.mkdir(parents=True, exist_ok=True)
        _encode(video, frames(), self._rate)
        columns = {"observation.state": _vectors(np.stack(states))} if self._dataset.state_names else {}
        index = np.arange(len(actions))
        columns["action"] = _vectors(np.stack(actions))
        columns["timestamp"] = pa.array((index / self._rate).astype(np.float32))
        numbers = {"frame_index": index, "episode_index": np.full_like(index, episode), "index": first + index}
        numbers["task_index"] = np.full_like(index, task_index)
        columns |= {name: pa.array(values) for name, values in numbers.items()}
        rows = self._folder / data_file(episode)
        rows.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(columns), rows)
        write_whole(_done(self._folder, episode), json.dumps(histogram.tolist()))
        return len(actions)

    def close(self) -> None:
        pass


def _steps(dataset: ZarrGameplayDataset, episode: int) -> Iterator[Step]:
    actions, axes = dataset.actions(episode), dataset.axes(episode)
    state = dataset.state(episode) if dataset.state_names else None
    for begin in range(0, len(actions), _BLOCK):
        block = range(begin, min(begin + _BLOCK, len(actions)))
        for i, frame in zip(block, dataset.frames(episode, block), strict=True):
            yield frame, Action(actions[i], axes[i]), None if state is None else state[i]


def _encode(file: Path, frames: Iterator[np.ndarray], fps: float) -> None:
    with VideoWriter(file, fps, crf=_CRF, key_frame_every=_KEY_FRAME_EVERY, preset="medium") as writer:
        for frame in frames:
            writer.append(frame)


def _vectors(values: np.ndarray) -> pa.Array:
    """[N, D] in LeRobot's form: float32 lists, or plain numbers where D is 1."""
    flat = pa.array(values.astype(np.float32).ravel())
    return flat if values.shape[1] == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def _common_rate(dataset: ZarrGameplayDataset, fps: float | None) -> float:
    """The frames per second of the export, which LeRobot has one of for all episodes."""
    rates = {}
    for episode in dataset.episodes:
        rate, where = episode.fps, f"{dataset.path}/{episode.name}"
        if rate is None:
            reason = "does not say its frames per second, which LeRobot needs"
            raise UserError(f"{where} {reason}: add 'fps' to its group attributes")
        if fps is not None and fps > rate:
            raise UserError(f"--fps {fps:g} is above the {rate:g} of {where}: lower it")
        if not RATES[0] <= rate <= RATES[1]:
            reason = f"has {rate:g} frames per second, a video has {RATES[0]:g} to {RATES[1]:g}"
            raise UserError(f"{where} {reason}: correct 'fps' among its group attributes")
        rates[episode.name] = rate
    slowest, fastest = min(rates, key=rates.__getitem__), max(rates, key=rates.__getitem__)
    if fps is None and rates[slowest] != rates[fastest]:
        differing = f"{rates[slowest]:g} frames per second in {slowest} and {rates[fastest]:g} in {fastest}"
        raise UserError(f"{dataset.path} has {differing}, LeRobot has one rate: add --fps {rates[slowest]!r}")
    return rates[slowest] if fps is None else fps


def _require_thinnable(dataset: ZarrGameplayDataset, fps: float) -> None:
    """Raises a UserError where an axis may have amounts that a frame left out takes with it."""
    for e, episode in enumerate(dataset.episodes):
        beyond = np.argwhere(np.abs(dataset.axes(e)) > 1)
        if len(beyond) and episode.fps != fps:
            frame, axis = beyond[0]
            amount = f"axis '{dataset.axis_names[axis]}' is {dataset.axes(e)[frame, axis]:g} in frame {frame}"
            reason = "an amount beyond 1, such as a mouse's, may add up over frames, and --fps leaves frames out"
            raise UserError(f"{dataset.path}/{episode.name}: {amount}, and {reason}: export without --fps")


def _thinned(length: int, recorded_fps: float, fps: float | None) -> int:
    """How many of ``length`` steps remain after ``every_nth``."""
    nothing: Step = (np.empty(0, np.uint8), at_rest(0, 0), None)
    return length if fps is None else sum(1 for _ in every_nth(repeat(nothing, length), recorded_fps, fps))


def _tasks(attrs: dict[str, Any], where: str) -> list[str]:
    """The episode's tasks as texts; LeRobot needs at least one."""
    tasks = attrs.get("tasks")
    if not tasks:
        return [f"play {attrs['game']}" if is_text(attrs.get("game")) else "play"]
    tasks = tasks if isinstance(tasks, list) else [tasks]
    if not all(map(is_text, tasks)):
        raise UserError(f"{where} has the attribute 'tasks' {str(tasks)[:100]}, not a list of texts: correct it")
    return tasks


def _is_unused(out: Path) -> bool:
    """Whether nothing is at ``out``, or an empty folder that can be replaced."""
    if not os.path.lexists(out):
        return True
    try:
        return out.is_dir() and not out.is_symlink() and not os.path.ismount(out) and not any(out.iterdir())
    except OSError:
        return False


def _done(folder: Path, episode: int) -> Path:
    """The file that marks an episode as finished; it holds the episode's histogram of colours."""
    return folder / _PROGRESS / f"episode_{episode:06d}.json"


@contextlib.contextmanager
def _partial(out: Path, settings: dict[str, Any]) -> Iterator[Path]:
    """The folder of the unfinished export, locked for this process, which must continue it with the same settings."""
    folder = out.with_name(f"{out.name}.partial")
    try:
        (folder / _PROGRESS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {folder} ({error.strerror}): choose another folder") from error
    busy = f"another process exports to {out}: wait for it, or choose another folder"
    with locked(folder / _PROGRESS / ".lock", busy):
        file = folder / _PROGRESS / "settings.json"
        if not file.exists():
            write_whole(file, json.dumps(settings))
        elif json.loads(file.read_bytes()) != settings:
            fault = "is an unfinished export of another dataset, or with other options"
            raise UserError(f"{folder} {fault}: finish it with the same command, or remove it")
        yield folder
