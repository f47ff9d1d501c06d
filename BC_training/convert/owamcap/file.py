"""Reads the MCAP file that ocap (https://github.com/open-world-agents/ocap) writes beside its video.

Its messages are JSON, and their schemas say what they are. Times are nanoseconds of the computer's clock. A message of
the screen says when a picture was taken, and where it is in the video. The counts of the mouse come from Windows' raw
input: a recording without it has only places on the screen, which hardly change in a game that turns by the mouse.

Presses and releases that were lost are repaired from the whole state of keyboard and mouse, which comes each second.
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np

from BC_training.common.errors import UserError, first_line
from BC_training.common.keybinds.button_names import MODIFIERS, MOUSE_BUTTONS, Button, key_name
from BC_training.games.window.desktop import WHEEL
from BC_training.games.window.windows_keys import MOUSE, MOUSE_KEYS
from BC_training.play.live.events import Event, Events

SCREEN = "desktop/ScreenCaptured"
_TOPICS = {"screen", "keyboard", "keyboard/state", "mouse", "mouse/raw", "mouse/state", "window"}
_ABSOLUTE = 1  # of a raw event's flags
_WHEEL_UP, _WHEEL_RIGHT, _WHEEL_DELTA = 0x400, 0x800, 120
# The state and the events come from different places: one that differs so soon after an event is not believed.
_SETTLE_SECONDS = 0.1
_SET_BACK_SECONDS = 0.1  # messages of several threads may come in another order for less


@dataclass(frozen=True)
class OwaMcap:
    """What a file holds; times are in seconds since the first picture.

    Attributes:
        events: what was pressed and moved while the game's window was the active one.
        times: when each picture was taken, float64 [N >= 1].
        stamps: where each is in the video, float64 [N], seconds.
        video: the video's file.
        away: (start, end) of each stretch in which another window was active.
        window: the title of the game's window; None where nothing says it.
        repaired: how many presses and releases were lost.
        notes: what to tell the user, one line each.
    """

    events: Events
    times: np.ndarray
    stamps: np.ndarray
    video: Path
    away: list[tuple[float, float]]
    window: str | None
    repaired: int
    notes: tuple[str, ...]


def read_mcap(file: Path) -> OwaMcap:
    """Reads a file, also one that is cut off; a UserError where it is damaged, or none of ocap's."""
    taken, notes = _Taken(), []
    try:
        for time, topic, kind, data in _messages(file, notes):
            taken.add(time, topic, kind, data)
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    if not taken.screens:
        seen = ", ".join(sorted(taken.seen)) or "no message at all"
        raise UserError(f"{file} has no picture ({SCREEN}) but {seen}: record the screen, or remove the file")
    (uri, *others), (begin, _), (last, _) = taken.videos, taken.screens[0], taken.screens[-1]
    name = PureWindowsPath(uri).name  # it lies beside, wherever it was recorded
    if others or not name or uri.startswith("data:"):
        raise UserError(f"{file}: its pictures are not in one video: write them into one with open-world-agents' tools")
    mouse = taken.raw if taken.has_raw else taken.pointer
    if not taken.has_raw:
        notes.append("no raw mouse was recorded: the mouse has buttons and a wheel, and no motion")
    for what, count in taken.left_out.items():
        notes.append(f"{count:,} {what} left out")
    if repaired := taken.keyboard.repaired + mouse.repaired:
        notes.append(f"{repaired} lost presses and releases were repaired from the whole state of each second")
    window, away = taken.stretches_away()
    if away:
        seconds = sum(max(min(end, last) - max(start, begin), 0.0) for start, end in away)
        notes.append(f"another window than '{window}' was active for {seconds:.1f} s: nothing counts as pressed there")
    rows = [*taken.keyboard.rows, *mouse.rows]
    kept = [row for row in rows if row.kind == "release" or not any(start <= row.time < end for start, end in away)]
    times, stamps = np.array(taken.screens).T
    return OwaMcap(
        Events.of([row._replace(time=row.time - begin) for row in kept]),
        times - begin,
        stamps,
        file.with_name(name),
        [(start - begin, end - begin) for start, end in away],
        window,
        repaired,
        tuple(notes),
    )


@dataclass
class _Device:
    """A keyboard, or a mouse as one of the recorder's two listeners hears it.

    Attributes:
        unseen: buttons that the state of each second does not tell.
    """

    unseen: frozenset[Button]
    rows: list[Event] = field(default_factory=list)
    down: set[Button] = field(default_factory=set)
    heard: dict[Button, float] = field(default_factory=dict)  # when each was pressed or released last
    repaired: int = 0
    _has_state: bool = False

    def turn(self, time: float, button: Button, is_press: bool) -> None:
        """A press, which may be a repeated one, or a release."""
        self.heard[button] = time
        (self.down.add if is_press else self.down.discard)(button)
        self.rows.append(Event(time, "press" if is_press else "release", *button, source="device"))

    def scroll(self, time: float, right: float, up: float) -> None:
        for x, y in ((right, 0.0), (0.0, up)):
            if x or y:
                button = next(b for b, (to_right, to_up) in WHEEL.items() if to_right * x + to_up * y > 0)
                self.rows.append(Event(time, "wheel", *button, x, y, "device"))

    def repair(self, time: float, down: set[Button]) -> None:
        """What is ``down`` is pressed, and nothing else; what is held at the first state was never lost."""
        wrong = self.down ^ down
        for button in sorted(wrong - self.unseen):
            if time - self.heard.get(button, -np.inf) > _SETTLE_SECONDS:
                self.repaired += self._has_state
                self.turn(time, button, button in down)
        self._has_state = True


@dataclass
class _Taken:
    """All that a file's messages said; times are seconds of the computer's clock."""

    screens: list[tuple[float, float]] = field(default_factory=list)  # when, and where in the video
    videos: dict[str, None] = field(default_factory=dict)
    windows: list[tuple[float, str, str]] = field(default_factory=list)  # when which was active, and its title
    left_out: Counter[str] = field(default_factory=Counter)
    seen: set[str] = field(default_factory=set)
    keyboard: _Device = field(default_factory=lambda: _Device(frozenset(MODIFIERS)))  # as it tells their sides
    raw: _Device = field(default_factory=lambda: _Device(frozenset([("mouse", "X1"), ("mouse", "X2")])))
    pointer: _Device = field(default_factory=lambda: _Device(frozenset([("mouse", "X1"), ("mouse", "X2")])))
    has_raw: bool = False
    _latest: float = -np.inf

    def add(self, time: float, topic: str, kind: str, data: dict[str, Any]) -> None:
        """Adds a message; a UserError where it is not as it should be."""
        if time < self._latest - _SET_BACK_SECONDS:
            back = f"{self._latest - time:.1f} s"
            raise UserError(f"the computer's clock was set back by {back} while it was recorded: cut the file there")
        self._latest = max(self._latest, time)
        self.seen.add(kind)
        try:
            self._add(time, topic, kind, data)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            reason = f"{type(error).__name__}: {first_line(error)}"
            raise UserError(f"a message of {topic}, {kind}, is damaged ({reason}): restore the file") from error

    def _add(self, time: float, topic: str, kind: str, data: dict[str, Any]) -> None:
        match kind:
            case "desktop/ScreenCaptured":
                self.videos[str(data["media_ref"]["uri"])] = None
                self.screens.append((time, _whole(data["media_ref"]["pts_ns"], 63) / 1e9))
            case "desktop/KeyboardEvent":
                if (key := _key(data["vk"])) is None:
                    self.left_out["presses and releases of keys without a name were"] += 1
                else:
                    self.keyboard.turn(time, key, {"press": True, "release": False}[data["event_type"]])
            case "desktop/KeyboardState":
                self.keyboard.repair(time, {key for key in map(_key, data["buttons"]) if key})
            case "desktop/MouseEvent":
                if data["event_type"] == "click" and (button := _button(data["button"])):
                    self.pointer.turn(time, button, bool(data["pressed"]))
                elif data["event_type"] == "scroll":
                    self.pointer.scroll(time, _whole(data["dx"]), _whole(data["dy"]))
            case "desktop/MouseState":
                down = {button for button in map(_button, data["buttons"]) if button}
                self.pointer.repair(time, down)
                self.raw.repair(time, down)
            case "desktop/RawMouseEvent":
                self._raw(time, data)
            case "desktop/WindowInfo":
                self.windows.append((time, str(data.get("hWnd")), str(data["title"])))
            case _ if topic in _TOPICS:
                migrated = "'owl mcap migrate run FILE' of open-world-agents brings older ones up to date"
                raise UserError(f"{topic} has messages of an unknown kind, {kind}: {migrated}")
            case _:
                self.left_out[f"messages of {topic} ({kind}) were"] += 1

    def _raw(self, time: float, data: dict[str, Any]) -> None:
        self.has_raw = True
        flags, amount = _whole(data.get("button_flags", 0)), _whole(data.get("button_data", 0))
        for button, (down, up, *_) in MOUSE.items():
            if flags & (down | up):
                self.raw.turn(time, button, bool(flags & down))
        notches = ((amount + 0x8000 & 0xFFFF) - 0x8000) / _WHEEL_DELTA
        self.raw.scroll(time, notches * bool(flags & _WHEEL_RIGHT), notches * bool(flags & _WHEEL_UP))
        older = "dx" in data  # names of older versions
        x, y = _whole(data["dx" if older else "last_x"]), _whole(data["dy" if older else "last_y"])
        if _whole(data.get("us_flags", 0)) & _ABSOLUTE:
            self.left_out["motions that tell a place, such as a tablet's, were"] += 1
        elif x or y:
            self.raw.rows.append(Event(time, "motion", x=x, y=y, source="device"))

    def stretches_away(self) -> tuple[str | None, list[tuple[float, float]]]:
        """The title of the window that was active the longest, and when another was."""
        if not self.windows:
            return None, []
        (game, _), *_ = Counter(window for _, window, _ in self.windows).most_common(1)
        title = next(title for _, window, title in self.windows if window == game)
        ends = [time for time, _, _ in self.windows[1:]] + [np.inf]
        return title, [(t, end) for (t, window, _), end in zip(self.windows, ends, strict=True) if window != game]


def _messages(file: Path, notes: list[str]) -> Iterator[tuple[float, str, str, dict[str, Any]]]:
    """The time, topic, kind and content of each message, in the order in which they were written."""
    from mcap.exceptions import EndOfFile, InvalidMagic
    from mcap.records import Channel, Message, Schema
    from mcap.stream_reader import StreamReader

    schemas: dict[int, str] = {}
    channels: dict[int, Channel] = {}
    with open(file, "rb") as opened:
        try:
            for record in StreamReader(opened, validate_crcs=True).records:
                if isinstance(record, Schema):
                    schemas[record.id] = record.name
                elif isinstance(record, Channel):
                    channels[record.id] = record
                elif isinstance(record, Message):
                    channel = channels[record.channel_id]
                    if channel.message_encoding != "json":
                        raise UserError(f"{channel.topic} is in {channel.message_encoding}: only JSON is read")
                    data = json.loads(record.data)
                    yield record.log_time / 1e9, channel.topic, schemas.get(channel.schema_id, "no schema"), data
        except UserError:
            raise
        except InvalidMagic as error:
            raise UserError("it is no MCAP file: remove it") from error
        except Exception as error:  # its decompressors raise anything
            if not isinstance(error, EndOfFile) and opened.read(1):
                raise UserError(f"it is damaged ({type(error).__name__}: {first_line(error)}): restore it") from error
            notes.append(f"{file.name} is cut off: what is before is used")


def _whole(value: Any, bits: int = 32) -> int:
    """A whole number of so many bits; a ValueError where it is none."""
    if not isinstance(value, int) or abs(value) >= 1 << bits:
        raise ValueError(f"{str(value)[:40]!r} is no whole number of {bits} bits")
    return value


def _key(number: int) -> Button | None:
    """The key of a virtual key code; None for the mouse's buttons and what has no name."""
    name = None if number in MOUSE_KEYS else key_name(f"<{int(number)}>")
    return None if name is None else ("key", name)


def _button(name: str) -> Button | None:
    return ("mouse", name.upper()) if name.upper() in MOUSE_BUTTONS else None
