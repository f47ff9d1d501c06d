"""LeRobot datasets in the formats v3.0, v2.1 and v2.0: one camera, buttons, and the state if there is one.

The action's values must be 0 and 1. Frames and rows are matched by time, one to one.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np

from BC_training.common.action import Action
from BC_training.common.errors import UserError
from BC_training.convert.identity import content_digest
from BC_training.convert.lerobot.features import choose_columns, frame_size
from BC_training.convert.lerobot.frames import at, first_picture, stored_images, video_frames
from BC_training.convert.lerobot.layout import Episode, Layout, read_layout
from BC_training.convert.lerobot.parquet import damage_is_user_error, numbers, open_columns, read_columns
from BC_training.convert.source import Options, Recording, Step, every_nth
from BC_training.convert.state_values import exact_float32, kept_columns


class _NotButtonsError(UserError):
    """The action does not consist of buttons."""


@dataclass(frozen=True)
class _Rows:
    times: np.ndarray  # float64 [N], seconds since the episode's beginning
    actions: np.ndarray  # bool [N, A]
    state: np.ndarray | None  # float32 [N, S]


def open_source(path: Path, options: Options) -> "LeRobotSource":
    """Opens a dataset's folder.

    Raises a UserError where ``read_layout`` and ``choose_columns`` do, if the action does not consist of buttons, or if
    ``Options.fps`` is above the recorded rate.
    """
    return LeRobotSource(read_layout(path.absolute(), options.camera), options.fps, options.leave_out)


class LeRobotSource:
    """The episodes of one dataset at ``fps`` frames per second; see ``source.Source``."""

    def __init__(self, layout: Layout, fps: float | None, leave_out: tuple[str, ...]):
        self._layout, self._fps = layout, fps
        place = f"{layout.root}/meta/info.json"
        if fps is not None and fps > layout.fps:
            raise UserError(f"--fps {fps:g} is above the {layout.fps:g} of {layout.root}: lower it, or leave it out")
        first = next((episode for episode in layout.episodes if episode.length), None)
        stored: list[str] = []
        if first is not None:
            with contextlib.suppress(UserError):  # ``read`` reports it, so that the other episodes are converted
                stored = open_columns(first.data, []).schema.names
        self._columns = choose_columns(place, layout.features, layout.camera, stored)
        self._frame_size = frame_size(place, layout.camera, layout.features[layout.camera])
        self._kept = kept_columns(self._columns.attributes, leave_out)
        self.button_names = self._columns.button_names
        self.axis_names: tuple[str, ...] = ()
        self.attributes = tuple(self._columns.attributes[i] for i in self._kept)
        # The folder's name is included so that several datasets can be gathered in one.
        folder = layout.root.resolve().name
        self._episodes = {f"{folder}/episode_{episode.index:06d}": episode for episode in layout.episodes}
        self.episodes = tuple(self._episodes)
        if first is not None:
            try:
                self._rows(first)
            except _NotButtonsError:
                raise  # once for the dataset, rather than for every episode
            except UserError:
                pass  # ``read`` reports it, too

    def digest(self, episode: str) -> str:
        """Covers an episode's times and actions, and its first picture."""
        place = self._episodes[episode]
        rows = read_columns(place.data, ["timestamp", self._columns.action], place.index)
        with damage_is_user_error(place.data):
            parts: list[bytes | str] = [str(rows.column(name).to_pylist()) for name in rows.column_names]
        return content_digest([*parts, first_picture(self._layout, place)])

    def place(self, episode: str) -> Path:
        return self._layout.root

    def read(self, episode: str) -> Recording:
        place, columns, fps = self._episodes[episode], self._columns, self._layout.fps
        steps = self._steps(place, self._rows(place)) if place.length else iter(())
        if self._fps is not None:
            steps, fps = every_nth(steps, fps, self._fps), self._fps
        left_out = sorted(columns.unread + columns.cameras)
        attrs = {"tasks": list(place.tasks), "not_converted": left_out}
        attrs = {name: values for name, values in attrs.items() if values}
        notes = (f"left out, neither action nor state: {', '.join(columns.unread)}",) if columns.unread else ()
        return Recording(fps, steps, attrs, notes)

    def _steps(self, episode: Episode, rows: _Rows) -> Iterator[Step]:
        if episode.video is not None:
            images = video_frames(episode, episode.video, rows.times, self._layout.fps)
        else:
            images = stored_images(self._layout, episode)
        height, width = self._frame_size
        state = repeat(None, len(rows.times)) if rows.state is None else rows.state
        labels = zip(rows.actions, state, strict=True)
        for i, (frame, (action, values)) in enumerate(zip(images, labels, strict=True)):
            if frame.shape != (height, width, 3):
                sizes = f"the image is {frame.shape[0]}x{frame.shape[1]}, in meta/info.json it is {height}x{width}"
                raise UserError(f"{at(episode, i)}: {sizes}: correct one of them")
            yield np.ascontiguousarray(frame.transpose(2, 0, 1)), Action.of(action), values

    def _rows(self, episode: Episode) -> _Rows:
        """Everything in an episode but its frames."""
        with damage_is_user_error(episode.data):
            return self._read_rows(episode)

    def _read_rows(self, episode: Episode) -> _Rows:
        columns, where = self._columns, f"{episode.data}, episode {episode.index}"
        state_columns = [columns.state] if columns.state is not None and self._kept else []
        names = ["timestamp", "frame_index", "episode_index", columns.action, *state_columns]
        table = read_columns(episode.data, names, episode.index)
        if table.num_rows != episode.length:
            raise UserError(f"{where} has {table.num_rows} rows, in the metadata {episode.length}: restore one of them")
        order = numbers(table, "frame_index", 1, where)[:, 0]
        if not np.array_equal(order, np.arange(len(order))):
            i = int(np.argmax(order != np.arange(len(order))))
            raise UserError(f"{at(episode, i)}: the row's frame_index is {order[i]}: sort the rows, or restore them")
        pressed = numbers(table, columns.action, len(self.button_names), where)
        bad = np.argwhere((pressed != 0) & (pressed != 1))
        if len(bad):
            i, column = bad[0]
            raise _NotButtonsError(
                f"{at(episode, i)}: action '{self.button_names[column]}' is {float(pressed[i, column]):g}, not 0 or 1: "
                "policies here press buttons, so turn the action into buttons first"
            )
        state = None
        for name in state_columns:
            values = numbers(table, name, len(columns.attributes), where)
            state = exact_float32(values[:, self._kept], self.attributes, where)
        times = numbers(table, "timestamp", 1, where)[:, 0].astype(np.float64)
        return _Rows(times, pressed.astype(bool), state)
