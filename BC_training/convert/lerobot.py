"""LeRobot datasets, formats v3.0, v2.1 and v2.0: one camera, buttons, and the state if there is one.

The action's values must be 0 and 1. Frames are matched to rows by time, one to one.
"""

import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.dataset as pads
from av.error import FFmpegError
from PIL import Image

from BC_training.common.errors import UserError
from BC_training.convert import Options, Recording, Step, every_nth
from BC_training.convert.lerobot_layout import Episode, Layout, open_columns, read_columns, read_layout, reason
from BC_training.convert.video import upright

ACTION, STATE = "action", "observation.state"
_BATCH = 16  # images read from parquet at once: bounds memory


class _NotButtonsError(UserError):
    """The action is no row of buttons."""


@dataclass(frozen=True)
class _Rows:
    times: np.ndarray  # float64 [N], seconds from the episode's beginning
    actions: np.ndarray  # bool [N, A]
    state: np.ndarray | None  # float32 [N, S]


def open_source(path: Path, options: Options) -> "LeRobotSource":
    """Opens a dataset's folder.

    Raises:
        UserError: see ``read_layout``; or it has no action, or one that is no row of buttons, or
            fewer frames per second than asked for.
    """
    return LeRobotSource(read_layout(path, options.camera), options.fps)


class LeRobotSource:
    """The episodes of one dataset; see ``convert.Source``.

    Args:
        fps: frames per second to hand out; None as recorded.
    """

    def __init__(self, layout: Layout, fps: float | None):
        self._layout, self._fps = layout, fps
        if ACTION not in layout.features:
            raise UserError(
                f"{layout.root} has no feature '{ACTION}' (it has {', '.join(layout.features)}): "
                "policies here learn what was pressed"
            )
        if fps is not None and fps > layout.fps:
            raise UserError(f"--fps {fps:g} is above the {layout.fps:g} of {layout.root}: lower it, or leave it out")
        self.keys = _names(layout, ACTION)
        self.attributes = _names(layout, STATE) if STATE in layout.features else ()
        # With the folder's name, so that several datasets can be gathered in one.
        folder = layout.root.resolve().name
        self._episodes = {f"{folder}/episode_{episode.index:06d}": episode for episode in layout.episodes}
        self.episodes = tuple(self._episodes)
        if layout.episodes:
            try:
                self._rows(layout.episodes[0])
            except _NotButtonsError:
                raise  # once for the dataset, rather than for every episode
            except UserError:
                pass  # reported by ``read``, so that the other episodes are converted

    def read(self, episode: str) -> Recording:
        place = self._episodes[episode]
        rows = self._rows(place)
        steps, fps = self._steps(place, rows), self._layout.fps
        attrs = {"tasks": list(place.tasks)} if place.tasks else {}
        if self._fps is not None:
            steps, fps = every_nth(steps, fps, self._fps), self._fps
        return Recording(fps, steps, attrs)

    def _steps(self, episode: Episode, rows: _Rows) -> Iterator[Step]:
        if episode.video is not None:
            images = self._video_frames(episode, episode.video, rows.times)
        else:
            images = self._stored_images(episode)
        height, width = _frame_size(self._layout.features[self._layout.camera])
        state = repeat(None, len(rows.times)) if rows.state is None else rows.state
        labels = zip(rows.actions, state, strict=True)
        for i, (frame, (action, values)) in enumerate(zip(images, labels, strict=True)):
            if frame.shape != (height, width, 3):
                raise UserError(
                    f"{_at(episode, i)}: the image is {frame.shape[0]}x{frame.shape[1]}, meta/info.json says "
                    f"{height}x{width}: correct one of them"
                )
            yield np.ascontiguousarray(frame.transpose(2, 0, 1)), action, values

    def _rows(self, episode: Episode) -> _Rows:
        """Everything of an episode but its frames."""
        names = ["timestamp", "frame_index", "episode_index", ACTION, *([STATE] if self.attributes else [])]
        table = read_columns(episode.data, names, episode.index)
        if table.num_rows != episode.length:
            raise UserError(
                f"{episode.data}, episode {episode.index} has {table.num_rows} rows, the metadata says "
                f"{episode.length}: restore one of them"
            )
        order = _column(table, "frame_index", episode, 1)[:, 0]
        if not np.array_equal(order, np.arange(len(order))):
            i = int(np.argmax(order != np.arange(len(order))))
            raise UserError(f"{_at(episode, i)}: the row's frame_index is {order[i]}: sort the rows, or restore them")
        pressed = _column(table, ACTION, episode, len(self.keys))
        bad = np.argwhere((pressed != 0) & (pressed != 1))
        if len(bad):
            i, column = bad[0]
            raise _NotButtonsError(
                f"{_at(episode, i)}: action '{self.keys[column]}' is {float(pressed[i, column]):g}, not 0 or 1: "
                "policies here press buttons, so turn the action into buttons first"
            )
        state = None
        if self.attributes:
            state = _column(table, STATE, episode, len(self.attributes)).astype(np.float32)
            bad = np.argwhere(~np.isfinite(state))
            if len(bad):
                i, column = bad[0]
                raise UserError(
                    f"{_at(episode, i)}: state '{self.attributes[column]}' is {state[i, column]}: repair or remove the "
                    "episode"
                )
        times = _column(table, "timestamp", episode, 1)[:, 0].astype(np.float64)
        return _Rows(times, pressed.astype(bool), state)

    def _video_frames(self, episode: Episode, file: Path, times: np.ndarray) -> Iterator[np.ndarray]:
        """Frames uint8 [H, W, 3] RGB shown at ``times`` after the episode's beginning."""
        fps, count = self._layout.fps, 0
        place = f"{file}, episode {episode.index}"
        if not file.exists():
            raise UserError(f"{place}: the video is missing: restore it")
        # More would let a frame pass for its neighbour; LeRobot's own 0.0001 s is too little for
        # the float32 timestamps of a long episode.
        tolerance = 0.25 / fps
        until = math.inf if episode.end is None else episode.end - tolerance
        try:
            with av.open(str(file)) as container:
                if not container.streams.video:
                    raise UserError(f"{file} holds no video: restore it")
                stream = container.streams.video[0]
                # Backwards to a key frame.
                container.seek(max(0, int((episode.start - tolerance) / (stream.time_base or 1))), stream=stream)
                for frame in container.decode(stream):
                    if frame.time is None:
                        raise UserError(f"{_at(episode, count, file)}: the picture has no time: encode the video again")
                    if frame.time < episode.start - tolerance:
                        continue
                    if frame.time >= until:
                        break
                    if count == len(times):
                        raise UserError(f"{place} has more pictures than its {len(times)} rows: restore one of them")
                    shown = frame.time - episode.start
                    if not abs(shown - times[count]) <= tolerance:
                        raise UserError(
                            f"{_at(episode, count, file)}: the picture is shown at {shown:.4f} s, the row's "
                            f"timestamp is {times[count]:.4f} s: they belong to different moments, restore one of them"
                        )
                    if frame.is_corrupt:
                        raise UserError(f"{_at(episode, count, file)}: the picture is damaged: restore the video")
                    yield upright(frame, file)
                    count += 1
        except (FFmpegError, OSError, ValueError) as error:
            raise UserError(f"{_at(episode, count, file)}: cannot decode ({reason(error)}): restore it") from error
        if count < len(times):
            raise UserError(f"{place} has {count} pictures for {len(times)} rows: restore one of them")

    def _stored_images(self, episode: Episode) -> Iterator[np.ndarray]:
        """Frames uint8 [H, W, 3] RGB kept as PNG or JPEG among the rows."""
        name, i = self._layout.camera, 0
        batches = open_columns(episode.data, [name]).to_batches(
            columns={"image": pads.field(name)},
            filter=pads.field("episode_index") == episode.index,
            batch_size=_BATCH,
            batch_readahead=1,
        )
        try:
            for batch in batches:
                for image in batch.column("image").to_pylist():
                    encoded = image.get("bytes") if isinstance(image, dict) else image
                    if not isinstance(encoded, bytes):
                        raise UserError(f"{_at(episode, i)}: '{name}' holds no image: restore the file")
                    with Image.open(io.BytesIO(encoded)) as opened:
                        yield np.asarray(opened.convert("RGB"))
                    i += 1
        except (OSError, ValueError, SyntaxError, pa.ArrowException) as error:
            raise UserError(f"{_at(episode, i)}: cannot decode '{name}' ({reason(error)}): restore the file") from error


def _at(episode: Episode, frame: int, file: Path | None = None) -> str:
    return f"{file or episode.data}, episode {episode.index}, frame {frame}"


def _column(table: pa.Table, name: str, episode: Episode, width: int) -> np.ndarray:
    """A column as [N, width]: numbers, or lists of ``width`` numbers."""
    values: Any = table.column(name).combine_chunks()
    numbers = values
    while pa.types.is_list(numbers.type) or pa.types.is_fixed_size_list(numbers.type):
        numbers = numbers.flatten()
    kind = numbers.type
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)):
        raise UserError(f"{episode.data}: the column '{name}' holds {values.type}, not numbers: restore the file")
    if len(numbers) != len(values) * width or numbers.null_count or values.null_count:
        raise UserError(
            f"{episode.data}, episode {episode.index}: the column '{name}' lacks values, it needs {width} in each row: "
            "restore the file"
        )
    return numbers.to_numpy(zero_copy_only=False).reshape(len(values), width)


def _names(layout: Layout, key: str) -> tuple[str, ...]:
    """The names of a feature's values; numbered where the dataset names none.

    LeRobot has them as a list, as lists by axis ({"motors": [...]}) or as {name: position}.
    """
    feature = layout.features[key]
    place = f"{layout.root}/meta/info.json: feature '{key}'"
    if len(feature["shape"]) != 1 or feature["shape"][0] < 1:
        raise UserError(f"{place} has shape {feature['shape']}, not one row of values: it cannot be converted")
    width, names = feature["shape"][0], feature.get("names") or []
    if isinstance(names, dict) and all(isinstance(value, int) for value in names.values()):
        names = sorted(names, key=names.__getitem__)
    elif isinstance(names, dict):
        names = list(names.values())
    if len(names) == 1 and isinstance(names[0], list):
        names = names[0]
    if not names or (len(names) == 1 and width > 1):
        prefix = names[0] if names else key.rpartition(".")[2]
        names = [f"{prefix}_{i}" for i in range(width)]
    if len(names) != width or len({str(name) for name in names}) != width:
        raise UserError(f"{place} has {width} values and the names {names}: name each once")
    return tuple(str(name) for name in names)


def _frame_size(feature: dict[str, Any]) -> tuple[int, int]:
    """(H, W) in pixels of a camera's frames; (0, 0) if the shape is no image's."""
    shape, names = feature["shape"], feature.get("names")
    if isinstance(names, list) and {"height", "width"} <= set(names) and len(names) == len(shape):
        return shape[names.index("height")], shape[names.index("width")]
    if len(shape) != 3:
        return 0, 0
    return (shape[1], shape[2]) if shape[0] in (1, 3) else (shape[0], shape[1])
