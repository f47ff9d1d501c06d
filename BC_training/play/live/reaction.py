"""What a program in a window does with what is pressed: whether its picture changes, by how much, and how late.

Before each press the picture is watched. A pixel counts as changed once its colour leaves what it had meanwhile, and a
press as seen once more pixels have than left it without one: so pictures that move by themselves do not count.
"""

import contextlib
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from BC_training.common.action import Action, at_rest
from BC_training.common.keybinds.button_names import Button, shown
from BC_training.games import GameSpec
from BC_training.games.window.desktop import Desktop, Region, WindowQuery
from BC_training.games.window.game import letterboxed
from BC_training.games.window.hands import Hands
from BC_training.games.window.platform import end_is_user_error, open_desktop
from BC_training.play.live.changes import Usual
from BC_training.play.live.labels import Binding
from BC_training.play.live.options import DENIED
from BC_training.runtime.workers import closing_on_sigterm

COUNTS = 100  # by which the mouse is moved
NOTHING = "nothing pressed"  # the name of what is tried for comparison
_WAIT = 1.0  # seconds that a change may take
_WATCH, _LONGEST = 0.5, 2.0  # seconds before each press, as many as it takes to know what changes by itself
_STILL, _CHUNK = 2.0, 0.15  # seconds in which a picture may come to rest; and in which it rests, then
_AFTER = 0.1  # seconds for which a change is watched, to see how large it becomes
_LOOKS = 15  # pictures, of which the median is what is there most of the time
_CALM = 3  # times without any press and change, after which it is known
_SHARE = 0.001  # of the pixels, which are at least to change
_GIVEN_UP = 5  # presses without any change, after which a button is left out


class Ended(Exception):
    """A hotkey was pressed."""


class Move(NamedTuple):
    """Something to do in a game, and how it is undone."""

    name: str
    action: Action
    back: Action


@dataclass
class Reaction:
    """What some presses of one button did, or some moves of one axis.

    Attributes:
        tries: how many there were.
        seconds: from each press that was seen to the change of the picture.
        shares: of the pixels that changed with each press, 0 to 1.
        usual: likewise, without one.
    """

    name: str
    tries: int = 0
    seconds: list[float] = field(default_factory=list)
    shares: list[float] = field(default_factory=list)
    usual: list[float] = field(default_factory=list)

    @property
    def is_seen(self) -> bool:
        """Whether most of the presses were."""
        return 2 * len(self.seconds) > self.tries

    def add(self, other: "Reaction") -> None:
        self.tries, self.seconds = self.tries + other.tries, [*self.seconds, *other.seconds]
        self.shares, self.usual = [*self.shares, *other.shares], [*self.usual, *other.usual]

    def to_dict(self) -> dict[str, Any]:
        p50, p95 = np.percentile(self.seconds, (50, 95)) if self.seconds else (None, None)
        times = {"p50_ms": p50, "p95_ms": p95, "most_ms": max(self.seconds, default=None)}
        found: dict[str, Any] = {"tries": self.tries, "seen": len(self.seconds)}
        found |= {name: None if value is None else 1000 * float(value) for name, value in times.items()}
        shares = {"share": self.shares, "usual_share": self.usual}
        return found | {name: float(np.median(values)) if values else None for name, values in shares.items()}


class Reactions:
    """Tries what a game does with presses and moves, as they are done in play, in a window that has the focus.

    Args:
        size: (H, W) of the frames in which a change has to be seen.
        hotkeys: the first begins, each other and each later one ends.
        tell: shows a line.

    Attributes:
        hands: what presses and moves.
        capture: seconds of each capture and scaling.
        arrived: how many presses and moves of its own the desktop reported.
        watch: for how many seconds the picture is watched before each press.
    """

    def __init__(
        self,
        desktop: Desktop,
        window: int,
        region: Region | None,
        binding: Binding,
        size: tuple[int, int],
        hotkeys: Sequence[Button],
        tell: Callable[[str], None],
    ):
        self._desktop, self._window, self.region, self._size = desktop, window, region, size
        self._hotkeys, self._tell, self._binding = hotkeys, tell, binding
        self.hands = Hands(desktop, window, binding.keys, binding.buttons, binding.axes)
        self.capture: list[float] = []
        self.arrived, self._moving, self.watch = 0, 0.0, _WATCH

    def wait_for_start(self) -> None:
        """Until the first hotkey is pressed and the window has the focus.

        Raises:
            Ended: another hotkey is pressed.
            NotShown: the window is hidden or closed.
        """
        while not (pressed := self._hotkeys_pressed()):
            self._desktop.grab(self._window, self.region)
            time.sleep(0.02)
        if pressed[0] != self._hotkeys[0]:
            raise Ended
        self._wait_for_focus()
        self._moving = self._watched(_STILL).moving
        for _ in range(_CALM):
            self.try_nothing(Reaction(NOTHING))

    def moves(self, names: Collection[str]) -> list[Move]:
        """Each button of these names that may be pressed, and each axis."""
        keys, buttons = self._binding.keys, len(self._binding.buttons)
        denied = {keys.columns.get(key) for key in DENIED}
        found = []
        for i, name in enumerate(self._binding.buttons):
            if name not in names:
                continue
            if i in denied:
                self._tell(f"{name} is not pressed, as it may leave the game")
                continue
            action = self.rest()
            action.buttons[i] = True
            found.append(Move(name, action, self.rest()))
        for x, name in enumerate(self._binding.axes):
            bind = keys.axes[x]
            if name not in names or denied & {buttons + 2 * x, buttons + 2 * x + 1}:
                continue
            if bind.mouse is not None:
                found.append(Move(name, *(self.moved(x, counts / bind.counts) for counts in (COUNTS, -COUNTS))))
            else:
                found.append(Move(name, self.moved(x, bind.amount), self.rest()))
        return found

    def rest(self) -> Action:
        return at_rest(len(self._binding.buttons), len(self._binding.axes))

    def moved(self, axis: int, amount: float) -> Action:
        action = self.rest()
        action.axes[axis] = amount
        return action

    def run(self, moves: Sequence[Move], rounds: int, show: Callable[[str], None]) -> list[Reaction]:
        """Does each of the moves once a round, and nothing once, for comparison; until a hotkey ends it.

        Args:
            show: gets what is being done.

        Returns:
            A reaction of each of the moves; last comes that to ``NOTHING``.
        """
        found, nothing = [Reaction(move.name) for move in moves], Reaction(NOTHING)
        try:
            for number in range(rounds):
                show(f"round {number + 1} of {rounds}: {NOTHING}")
                self.try_nothing(nothing)
                for move, reaction in zip(moves, found, strict=True):
                    if reaction.tries < _GIVEN_UP or reaction.seconds:
                        show(f"round {number + 1} of {rounds}: {move.name}")
                        self._try(move, reaction)
        except Ended:
            self._tell("ended by a hotkey")
        finally:
            self.hands.rest()
        return [*found, nothing]

    def do(self, action: Action) -> None:
        """Does an action as soon as the window has the focus."""
        while not self.hands.do(action):
            self._wait_for_focus()

    def still(self) -> None:
        """Until the picture moves no more than it did at the start, or for ``_STILL`` seconds."""
        end = time.perf_counter() + _STILL
        while self._watched(_CHUNK).moving > self._moving + _SHARE and time.perf_counter() < end:
            pass

    def settled(self) -> UInt8[np.ndarray, "3 H W"]:
        """What the picture shows most of the time, once it is still: light may flash."""
        self.still()
        pictures = []
        for _ in range(_LOOKS):
            pictures.append(self._picture()[1])
            time.sleep(self.watch / _LOOKS)
        return np.median(pictures, axis=0).astype(np.uint8)

    def try_nothing(self, reaction: Reaction) -> None:
        """Where the picture changes without a press, it is watched for longer from then on, and this is done again."""
        while True:
            self._try(Move(NOTHING, self.rest(), self.rest()), found := Reaction(NOTHING))
            if not found.seconds or self.watch >= _LONGEST:
                break
            self.watch *= 2
        reaction.add(found)

    def _try(self, move: Move, reaction: Reaction) -> None:
        self._wait_for_focus()
        self.still()
        usual, later, by_itself = self._watched(self.watch / 2), Usual(self._picture()[1]), 0.0
        end = time.perf_counter() + self.watch / 2
        while time.perf_counter() < end:
            picture = self._picture()[1]
            by_itself = max(by_itself, usual.share(picture))
            later.add(picture)
        usual.add_all(later)
        self.do(move.action)
        begun, seen, most = time.perf_counter(), None, 0.0
        end = begun + _WAIT
        while (now := time.perf_counter()) < end:
            taken, picture = self._picture()
            share = usual.share(picture)
            most = max(most, share)
            if seen is None and share > max(2 * by_itself, _SHARE):
                seen, end = taken - begun, now + _AFTER
        if not self.hands.do(move.back):
            return  # the focus was lost, perhaps before the press came
        reaction.tries += 1
        reaction.seconds += [] if seen is None else [seen]
        reaction.shares.append(most)
        reaction.usual.append(by_itself)

    def _watched(self, seconds: float) -> Usual:
        end = time.perf_counter() + seconds
        usual = Usual(self._picture()[1])
        while time.perf_counter() < end:
            usual.add(self._picture()[1])
        return usual

    def _picture(self) -> tuple[float, UInt8[np.ndarray, "3 H W"]]:
        """When it was taken, and what the window shows."""
        time.sleep(0.001)  # the game may need this core
        if self._hotkeys_pressed():
            raise Ended
        taken = time.perf_counter()
        picture = letterboxed(self._desktop.grab(self._window, self.region), self._size)
        self.capture.append(time.perf_counter() - taken)
        return taken, picture

    def _hotkeys_pressed(self) -> list[Button | None]:
        events = self._desktop.events()
        self.arrived += sum(event.source == "own" and event.kind != "release" for event in events)
        return [event.button for event in events if event.kind == "hotkey"]

    def _wait_for_focus(self) -> None:
        if self._desktop.has_focus(self._window):
            return
        self.hands.rest()
        self._tell("the window has not the focus: click into it to go on")
        while not self._desktop.has_focus(self._window):
            self._picture()
            time.sleep(0.02)


@contextlib.contextmanager
def reactions_of(
    game: GameSpec, binding: Binding, size: tuple[int, int], hotkeys: Sequence[Button], tell: Callable[[str], None]
) -> Iterator[Reactions]:
    """Opens a window; in the end all is released.

    Raises:
        UserError: no such window, one without a picture, or hotkeys that another program has.
    """
    with closing_on_sigterm(), contextlib.closing(open_desktop()) as desktop, end_is_user_error():
        window, region = desktop.find(WindowQuery.parse(game.name)), game.arguments["region"]
        found = Reactions(desktop, window.id, Region.parse(region) if region else None, binding, size, hotkeys, tell)
        desktop.grab(window.id, found.region)
        desktop.grab_hotkeys([shown(key) for key in hotkeys])
        start, _, end = map(shown, hotkeys)
        tell(f"{window}: click into it where the picture rests and press {start}, then leave keys and mouse alone")
        tell(f"{end} ends this")
        yield found
