"""LeRobot datasets in the formats v3.0, v2.1 and v2.0: one camera, the action, and the state if there is one.

If all values of the action are 0 and 1, in all episodes, they are buttons; otherwise all are axes, those of 0 and 1
among them. A dataset that this program exported says which are which. Frames and rows are matched by time, one to one.
"""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import compress, repeat
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
from BC_training.convert.state_values import exact_float32, finite_axes, kept_columns


@dataclass(frozen=True)
class _Rows:
    times: np.ndarray  # float64 [N], seconds since the episode's beginning
    actions: Action  # buttons bool [N, A], axes float32 [N, X]
    state: np.ndarray | None  # float32 [N, S]


def open_source(path: Path, options: Options) -> "LeRobotSource":
    """Opens a dataset's folder.

    Raises a UserError where ``read_layout`` and ``choose_columns`` do, and if ``Options.fps`` is above the recorded
    rate.
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
        self.attributes = tuple(self._columns.attributes[i] for i in self._kept)
        # The folder's name is included so that several datasets can be gathered in one.
        folder = layout.root.resolve().name
        self._episodes = {f"{folder}/episode_{episode.index:06d}": episode for episode in layout.episodes}
        self.episodes = tuple(self._episodes)
        names, stated, self.notes = self._columns.action_names, self._columns.buttons, ()
        if stated is None:
            amount = self._first_amount()
            stated = names if amount is None else ()
            self.notes = () if amount is None else (f"the action becomes axes, not buttons: {amount}",)
        self._is_button = np.array([name in stated for name in names])
        self.button_names = tuple(compress(names, self._is_button))
        self.axis_names = tuple(compress(names, ~self._is_button))

    def _first_amount(self) -> str | None:
        """A value of the action that is no button's, and its place; None if there is none that can be read."""
        column, names = self._columns.action, self._columns.action_names
        for episode in self._layout.episodes:
            with contextlib.suppress(UserError), damage_is_user_error(episode.data):  # ``read`` reports it
                values = numbers(read_columns(episode.data, [column], episode.index), column, len(names), "")
                # What is not finite is damage, which says nothing about the others.
                amounts = np.argwhere(np.isfinite(values) & (values != 0) & (values != 1))
                if len(amounts):
                    frame, i = amounts[0]
                    return f"'{names[i]}' is {float(values[frame, i]):g} in {at(episode, frame)}"
        return None

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
        labels = zip(*rows.actions, state, strict=True)
        for i, (frame, (buttons, axes, values)) in enumerate(zip(images, labels, strict=True)):
            if frame.shape != (height, width, 3):
                sizes = f"the image is {frame.shape[0]}x{frame.shape[1]}, in meta/info.json it is {height}x{width}"
                raise UserError(f"{at(episode, i)}: {sizes}: correct one of them")
            yield np.ascontiguousarray(frame.transpose(2, 0, 1)), Action(buttons, axes), values

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
        values = numbers(table, columns.action, len(columns.action_names), where)
        pressed, axes = values[:, self._is_button], values[:, ~self._is_button]
        bad = np.argwhere((pressed != 0) & (pressed != 1))
        if len(bad):
            i, column = bad[0]
            fault = f"action '{self.button_names[column]}' is {float(pressed[i, column]):g}, a button's is 0 or 1"
            raise UserError(f"{at(episode, i)}: {fault}: correct it, or remove the episode")
        actions = Action(pressed.astype(bool), finite_axes(axes, self.axis_names, where))
        state = None
        for name in state_columns:
            values = numbers(table, name, len(columns.attributes), where)
            state = exact_float32(values[:, self._kept], self.attributes, where)
        times = numbers(table, "timestamp", 1, where)[:, 0].astype(np.float64)
        return _Rows(times, actions, state)
