"""A person who sits before a real window: an X server without a screen, and keys and mouse by XTest."""

import contextlib
import ctypes
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import gymnasium
import numpy as np
from Xlib import XK, X, display
from Xlib.ext import xtest
from Xlib.protocol import event

from BC_training.common.action import Action
from BC_training.games import Option, make_game, register
from BC_training.games.spaces import action_space, observation_space


@contextlib.contextmanager
def screen(size: str = "800x600x24") -> Iterator[str]:
    """An X server of its own, whose address is in DISPLAY meanwhile."""
    reading, writing = os.pipe()
    command = ["Xvfb", "-displayfd", str(writing), "-screen", "0", size, "-nolisten", "tcp", "-noreset"]
    server = subprocess.Popen(command, pass_fds=[writing], stderr=subprocess.DEVNULL)
    os.close(writing)
    before = os.environ.get("DISPLAY")
    try:
        with open(reading, encoding="utf-8") as numbers:
            os.environ["DISPLAY"] = f":{numbers.readline().strip()}"  # it writes this once it is ready
        yield os.environ["DISPLAY"]
    finally:
        if before is None:
            os.environ.pop("DISPLAY", None)
        else:
            os.environ["DISPLAY"] = before
        server.terminate()
        server.wait()


class ScriptedPerson:
    """Presses keys and moves the mouse; each call returns once the X server has done it."""

    def __init__(self, name: str | None):
        self._display = display.Display(name)

    def press(self, *keys: str) -> None:
        """X11's names: "w", "Left", "Return"."""
        self._keys(X.KeyPress, keys)

    def release(self, *keys: str) -> None:
        self._keys(X.KeyRelease, keys)

    def tap(self, *keys: str) -> None:
        self.press(*keys)
        self.release(*keys)

    def click(self, button: int) -> None:
        self.button(button, True)
        self.button(button, False)

    def button(self, button: int, down: bool) -> None:
        """Presses or releases a button of the mouse."""
        self._fake(X.ButtonPress if down else X.ButtonRelease, button)

    def move(self, x: int, y: int) -> None:
        """By so many counts to the right and down."""
        self._fake(X.MotionNotify, 1, x=x, y=y)  # 1: relative

    def point_at(self, x: int, y: int) -> None:
        """Puts the pointer there."""
        self._fake(X.MotionNotify, 0, x=x, y=y)

    def pointer(self) -> tuple[int, int]:
        found = self._display.screen().root.query_pointer()
        return found.root_x, found.root_y

    def code(self, key: str) -> int:
        return self._display.keysym_to_keycode(XK.string_to_keysym(key))

    def close(self) -> None:
        self._display.close()

    def close_window(self, title: str) -> None:
        """As the cross in the corner of a window does."""
        named, protocols, delete = map(self._display.intern_atom, ("_NET_WM_NAME", "WM_PROTOCOLS", "WM_DELETE_WINDOW"))
        windows = self._windows(self._display.screen().root)
        window = next(w for w in windows if w.get_full_text_property(named) == title)
        message = event.ClientMessage(window=window, client_type=protocols, data=(32, [delete, X.CurrentTime, 0, 0, 0]))
        window.send_event(message)
        self._display.sync()

    def _windows(self, window) -> Iterator:
        for child in window.query_tree().children:
            yield child
            yield from self._windows(child)

    def _keys(self, event: int, keys: tuple[str, ...]) -> None:
        for key in keys:
            self._fake(event, self.code(key))

    def _fake(self, event: int, detail: int, **where: int) -> None:
        xtest.fake_input(self._display, event, detail, **where)
        self._display.sync()


Script = Callable[[ScriptedPerson, int], None]  # what a person does while frame t of all frames is shown


def at(done: dict[int, Callable[[ScriptedPerson], object]]) -> Script:
    """The script that does this in these frames."""
    return lambda person, t: done[t](person) if t in done else None


class VirtualPad:
    """A game controller that SDL takes for a real one; needs an open window."""

    def __init__(self) -> None:
        import pygame

        folder = Path(pygame.__file__).parents[1] / "pygame_ce.libs"
        self._sdl = ctypes.CDLL(str(next(folder.glob("libSDL2-2*"))))
        self._sdl.SDL_JoystickOpen.restype = ctypes.c_void_p

    def attach(self) -> None:
        self._index = self._sdl.SDL_JoystickAttachVirtual(1, 6, 15, 0)  # a game controller: axes, buttons, hats
        self._pad = ctypes.c_void_p(self._sdl.SDL_JoystickOpen(self._index))

    def detach(self) -> None:
        self._sdl.SDL_JoystickClose(self._pad)
        self._sdl.SDL_JoystickDetachVirtual(self._index)

    def press(self, button: int, down: bool) -> None:
        self._sdl.SDL_JoystickSetVirtualButton(self._pad, button, int(down))

    def push(self, axis: int, value: int) -> None:
        self._sdl.SDL_JoystickSetVirtualAxis(self._pad, axis, ctypes.c_int16(value))


class Room:
    """What the games of a test share: who sits at the window, and what they do.

    Attributes:
        script: called as frame t of the session appears, counted from 0 over all episodes.
        starts: the key that is pressed before an episode, where it is another than Return; counted from 0.
        length: the frames of an episode of ``ToyGame``.
        frames, episodes: of the session so far.
    """

    person: ScriptedPerson
    script: Script
    starts: ClassVar[dict[int, str]] = {}
    length = 20
    frames = episodes = 0

    @classmethod
    def follow(cls, script: Script, starts: dict[int, str] | None = None) -> None:
        """A session begins."""
        cls.script, cls.starts, cls.frames, cls.episodes = staticmethod(script), starts or {}, 0, 0


class ScriptedGame(gymnasium.Wrapper):
    """Another game; while it is shown in a window, ``Room.script`` is played between two frames.

    So an input surely falls into the time of one frame, however busy the machine is.
    """

    def reset(self, **options):
        found = self.env.reset(**options)
        if _is_shown():
            wait_for_focus(Room.person)
            Room.person.tap(Room.starts.get(Room.episodes, "Return"))
            Room.episodes += 1
            self._play()
        return found

    def step(self, action: Action):
        found = self.env.step(action)
        if not (found[2] or found[3]) and _is_shown():
            self._play()
        return found

    def _play(self) -> None:
        Room.script(Room.person, Room.frames)
        Room.frames += 1


class ToyGame(gymnasium.Env):
    """Frames of one colour each at 100 frames/s."""

    buttons: tuple[str, ...] = ("move_forward", "attack", "turn_left")
    axes: tuple[str, ...] = ("turn", "steering")
    state_names: tuple[str, ...] = ()
    fps = 100.0
    is_turn_based = False

    def __init__(self, frame_size: tuple[int, int], turns: bool):
        self.frame_size, self.is_turn_based = frame_size, turns
        self.action_space = action_space(len(self.buttons), len(self.axes))
        self.observation_space = observation_space(frame_size, 0)

    def reset(self, *, seed: int | None = None, options: dict | None = None):
        self.t = 0
        return self._observe(), {}

    def step(self, action: Action):
        self.t += 1
        return self._observe(), 1.0, self.t == Room.length, False, {}

    def render(self):
        return None

    def _observe(self) -> dict[str, np.ndarray]:
        return {"frame": np.full((3, *self.frame_size), self.t, np.uint8), "state": np.zeros(0, np.float32)}


def scripted_game(
    name: str, *, frame_size: tuple[int, int], render_mode: str | None, turns: bool, of: str
) -> gymnasium.Env:
    del name
    return ScriptedGame(
        make_game(of, frame_size=frame_size, render_mode=render_mode) if of else ToyGame(frame_size, turns)
    )


def _is_shown() -> bool:
    import pygame

    return pygame.display.get_init() and pygame.display.get_surface() is not None


def wait_for_focus(person: ScriptedPerson) -> None:
    """Until the window has the keyboard."""
    import pygame

    while not pygame.key.get_focused():
        pygame.event.pump()
        time.sleep(0.01)


def register_games() -> None:
    register(
        "scripted",
        names=("game",),
        make="scripted_person:scripted_game",
        engine="gymnasium",
        options={"turns": Option(False), "of": Option("")},  # the game that it is, in place of ``ToyGame``
    )
