"""A player who sits before a window, alone or beside a policy whose place they take while they hold a key."""

from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np

from BC_training.common.action import Action
from BC_training.common.keybinds.play_keys import PlayKeys
from BC_training.common.metrics import return_text
from BC_training.play.human.clock import FrameClock
from BC_training.play.human.inputs import Inputs, held_names
from BC_training.play.human.options import PersonOptions
from BC_training.play.human.window import Window
from BC_training.play.players import Player, PolicyPlayer


@dataclass(frozen=True)
class Ended(Exception):
    """The person quits or closes the window."""

    keep: bool  # whether the episode in progress is kept as far as it was played


class Discarded(Exception):
    """The person discards the episode in progress, or before its first frame the one before it."""


class Person:
    """Plays by a window at the game's rate; what is done while a frame is shown is that frame's action.

    A game that says ``is_turn_based`` waits for a press instead.

    Args:
        env: with ``render_mode="rgb_array"``, so that the window may show more than the recorded frame.
        policy: who plays while the key for taking over is up; None where the person always plays.

    Attributes:
        by_person: of each frame of the episode so far, whether the person acted in it.
        clock: of the episode.
        note: a line that stands in the window before the next episode.
        score: to be shown.
    """

    def __init__(
        self,
        env: gymnasium.Env,
        keys: PlayKeys,
        window: Window,
        policy: Player | None,
        options: PersonOptions,
    ):
        self._env, self._keys, self._window, self._policy, self._options = env, keys, window, policy, options
        self._game: Any = env.unwrapped
        self._turns = bool(getattr(self._game, "is_turn_based", False))
        self._inputs = Inputs(keys, len(self._game.buttons))
        self.note, self.episode = "", ""

    @property
    def takes_over(self) -> bool:
        """Whether a policy plays, too."""
        return self._policy is not None

    def reset(self, seed: int) -> None:
        if self._policy is not None:
            self._policy.reset(seed)
        self.by_person: list[bool] = []
        self.clock, self.score, self._last = FrameClock(self._game.fps), 0.0, ""

    def act(self, observation: dict[str, np.ndarray]) -> Action:
        """Shows the frame until its time is over.

        Raises:
            Ended, Discarded: as the person wishes.
        """
        drawn = self._env.render()
        frame = np.moveaxis(observation["frame"], 0, -1)
        self._picture = drawn if isinstance(drawn, np.ndarray) else frame
        theirs = None if self._policy is None else self._policy.act(observation)
        if not self.by_person:
            self._hold(f"{self.note}{self._key('start')} starts", "start")
        self._show("")
        if self._turns:
            while not self._inputs.pressed:
                self._watch(1.0)
        else:
            while (left := self.clock.left) > 0:
                self._watch(left)
            while self._watch(0):  # all that came before the frame ended
                pass
        self.clock.tick()
        action, takes_over = self._inputs.action(pressed_only=self._turns)
        self._inputs.clear()
        if theirs is not None:
            if not takes_over:
                action = theirs
            elif isinstance(self._policy, PolicyPlayer):
                self._policy.override(action)
        self.by_person.append(theirs is None or takes_over)
        self._last = held_names(self._game.buttons, action, self._game.axes)
        return action

    def _watch(self, seconds: float) -> bool:
        """Takes the next event; False if none comes in time."""
        event = self._window.next_event(seconds)
        if event is None:
            return False
        match self._inputs.take(event):
            case "pause":
                self._hold(f"paused; {self._key('start')} goes on", "start", "pause")
            case "unfocused":
                self._hold(f"paused, as another window has the keyboard; {self._key('start')} goes on", "start")
            case "unplugged":
                self._hold(f"the pad was unplugged: plug it in, then {self._key('start')} goes on", "start")
            case "quit" | "close":
                raise Ended(self._keeps())
        return True

    def _hold(self, message: str, *ends: str) -> None:
        """Stands still until one of the controls ``ends``; then the frame begins anew."""
        self._window.capture(False)
        also = f"{self._key('discard')} discards this episode"
        if not self.by_person:
            also = f"{self._key('discard')} discards the last episode" if self.note else ""
        message = ", ".join(filter(None, (message, also, f"{self._key('quit')} quits")))
        done = None
        while done not in ends:
            done = self._ask(message, *ends, "discard", "quit", "close", "plugged")
            if done == "discard" and (self.by_person or self.note):
                raise Discarded
            if done in ("quit", "close"):
                raise Ended(self._keeps())
        self._window.capture(self._keys.uses_mouse)
        self._inputs.clear()
        self.clock.restart()
        self._show("")

    def _keeps(self) -> bool:
        if not self.by_person or self._options.unfinished != "ask":
            return bool(self.by_person) and self._options.unfinished == "keep"
        self._window.capture(False)
        question = f"The episode is not over. {self._key('start')} keeps it as it is, {self._key('discard')} drops it"
        return self._ask(question, "start", "discard", "quit", "close") != "discard"

    def _ask(self, message: str, *answers: str) -> str:
        """The first answer that comes; whoever closes the window once more has lost nothing."""
        self._show(message)
        while True:
            event = self._window.next_event(0.5)
            if event is None:
                self._show(message)  # another window may have covered this one
            elif (answer := self._inputs.take(event)) in answers:
                return answer

    def _show(self, message: str) -> None:
        clock = self.clock
        if not message:
            message = " · ".join(f"{self._key(what)} {what}" for what in ("pause", "quit"))
            message += f" · {self._options.takeover} held: you play" if self.takes_over else ""
        rate = f"{clock.real_fps:.1f} of {self._game.fps:.1f} fps, {clock.late} late"
        whose = "" if self._policy is None else "you: " if self.by_person and self.by_person[-1] else "policy: "
        status = f"{self.episode} · frame {len(self.by_person)} · score {return_text(self.score)} · {rate}"
        self._window.show(self._picture, [status, f"{whose}{self._last}", message])

    def _key(self, control: str) -> str:
        return self._keys.control_keys[control]
