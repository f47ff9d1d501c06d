"""Programs in windows of this desktop, named ``window/TITLE``, ``window/id:0x3a00007`` or ``window/pid:4242``."""

import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from jaxtyping import UInt8

from BC_training.common.action import Action
from BC_training.common.keybinds.play_keys import PlayKeys, bound_names, play_keys
from BC_training.common.preprocess import resize_frames
from BC_training.games.spaces import action_space, observation_space
from BC_training.games.window.clock import Ticks
from BC_training.games.window.desktop import Desktop, NotShown, Region, WindowQuery
from BC_training.games.window.hands import Hands
from BC_training.games.window.platform import open_desktop


class WindowGame(gymnasium.Env):
    """A program that runs in a window, in real time: what it is asked to do happens whether or not anyone waits.

    Observation: ``{"frame": uint8 [3, H, W] RGB, "state": float32 [0]}``, the window's contents, scaled to fit and
    centred on black. It is followed when it is moved or gets another size.
    Action: what keys, buttons and the mouse do until the next frame, while the window has the focus; see ``Hands``.
    Reward: none, and no episode ends. ``reset`` restarts nothing in the program.
    ``step`` and ``reset`` give in ``info`` "time", when the frame was taken, in seconds of ``time.perf_counter()``;
    "late", by how many seconds that was after its moment; "missed", how many frames were left out before it as it was
    too late for them; and "focused", whether the action was done.

    Args:
        name: which window, as ``WindowQuery`` reads it.
        frame_size: (H, W) of the frames in pixels.
        fps: frames a second.
        region: the part of the window that is seen, "x,y,width,height" in its pixels; "" for all.
        keybinds: the file that says which buttons and axes there are and what they do; "" for none, and a game that is
            only looked at.
        bound: the names of the buttons and axes and their keys, where no file says them.
        render_mode: with ``"rgb_array"`` ``render()`` returns the window's contents, uint8 [H', W', 3].
        desktop: where the window is; None opens this one. Whoever gives one closes it.

    Raises:
        UserError: no such window or several, no desktop, a region outside the window, keybinds that cannot be played,
            and in ``step`` and ``reset``, as ``NotShown``, a window that is hidden or closed; all is released then.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 (Gymnasium's)
    state_names: tuple[str, ...] = ()

    def __init__(
        self,
        name: str,
        *,
        frame_size: tuple[int, int],
        fps: float = 20.0,
        region: str = "",
        keybinds: str | Path = "",
        bound: tuple[tuple[str, ...], tuple[str, ...], PlayKeys] | None = None,
        render_mode: str | None = None,
        desktop: Desktop | None = None,
    ):
        path = Path(keybinds) if keybinds else None
        if bound is None:
            buttons, axes = bound_names(path) if path else ((), ())
            bound = buttons, axes, play_keys(path, buttons, axes)
        self.buttons, self.axes, keys = bound
        self.frame_size, self.fps, self.render_mode = frame_size, fps, render_mode
        self._region = Region.parse(region) if region else None
        reach = max((axis.amount for axis in keys.axes), default=1.0)
        self.action_space = action_space(len(self.buttons), len(self.axes), reach)
        self.observation_space = observation_space(frame_size, len(self.state_names))
        self._ticks = Ticks(fps)
        query, self._opened = WindowQuery.parse(name), desktop is None
        self.desktop = open_desktop() if desktop is None else desktop
        try:
            self.window = self.desktop.find(query)
            self.hands = Hands(self.desktop, self.window.id, keys, self.buttons, self.axes)
            self._picture = self.desktop.grab(self.window.id, self._region)
        except BaseException:
            self.close()
            raise

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self.hands.rest()
        self._ticks.restart()
        return self._observe(False)

    def step(self, action: Action) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        try:
            is_focused = self.hands.do(action)
            self._ticks.wait()
            observation, info = self._observe(is_focused)
        except BaseException:
            self.hands.rest()
            raise
        return observation, 0.0, False, False, info

    def render(self) -> np.ndarray | None:
        return np.ascontiguousarray(self._picture) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        if self._opened:
            self.desktop.close()
        else:
            self.desktop.release_all()

    def _observe(self, is_focused: bool) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        taken = time.perf_counter()
        try:
            self._picture = self.desktop.grab(self.window.id, self._region)
        except NotShown as error:
            raise NotShown(f"{self.window}: {error}", error.state) from None
        frame = letterboxed(self._picture, self.frame_size)
        info = {"time": taken, "late": self._ticks.late, "missed": self._ticks.missed, "focused": is_focused}
        return {"frame": frame, "state": np.zeros(0, np.float32)}, info


def letterboxed(picture: UInt8[np.ndarray, "h w 3"], size: tuple[int, int]) -> UInt8[np.ndarray, "3 H W"]:
    """A picture as a frame of ``size`` (H, W): as large as fits, its shape kept, in the middle of black."""
    height, width = size
    scale = min(height / picture.shape[0], width / picture.shape[1])
    inner = max(round(picture.shape[0] * scale), 1), max(round(picture.shape[1] * scale), 1)
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    frame = np.zeros((3, height, width), np.uint8)
    frame[:, top : top + inner[0], left : left + inner[1]] = resize_frames(np.moveaxis(picture, -1, 0)[None], inner)[0]
    return frame
