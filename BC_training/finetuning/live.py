"""Programs in windows as games to learn in: the state that is sent says how good a step was, and when all is over."""

import sys
import time
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from BC_training.common.action import Action, at_rest
from BC_training.common.errors import UserError, unknown
from BC_training.common.keybinds.button_names import Button, key_name
from BC_training.finetuning.rewards import Restart, Reward
from BC_training.games import GameSpec, make_game
from BC_training.games.window.desktop import NotShown
from BC_training.games.window.game import WindowGame, letterboxed
from BC_training.games.window.platform import end_is_user_error
from BC_training.play.live.labels import Binding
from BC_training.play.live.options import denied_columns
from BC_training.play.live.state import GameState

_PATIENCE = 8.0  # seconds in which each value of the state is to come while the window has the focus


class LiveOptions(NamedTuple):
    """What a window needs to be learned in.

    Attributes:
        buttons, axes: the policy's names, which say what is pressed where the game's spec has no keybinds.
        state: "HOST:PORT", where the state is sent to.
        state_names: of its S values.
        reward: the user's function, as ``rewards.Reward`` takes it.
        restart: the user's function, as ``rewards.Restart`` takes it; None where the game starts again by itself.
    """

    buttons: tuple[str, ...]
    axes: tuple[str, ...]
    state: str
    state_names: tuple[str, ...]
    reward: str
    restart: str | None


class LiveGame(WindowGame):
    """A window with a state, rewards and episodes; otherwise as ``WindowGame``.

    Observation: "state" is float32 [S], the newest values that were sent.
    Reward: what the user's function makes of the state before and after a step; it also ends episodes.
    ``info`` has "waits": whether the step was none, with all released and no reward, as the window has no focus or is
    hidden, the state does not come, or what was seen before the step was not of now.
    ``reset`` calls the user's function that starts the game again.

    Raises:
        UserError: as ``WindowGame``, ``Reward`` and ``Restart`` do, and where the state does not come at all.
    """

    def __init__(self, spec: GameSpec, frame_size: tuple[int, int], options: LiveOptions):
        given, bound, denied = spec.arguments, None, []
        if not given["keybinds"]:
            try:
                binding = Binding.of_names(options.buttons, options.axes, "the policy")
            except UserError as error:
                names = ", ".join((*options.buttons, *options.axes))
                raise UserError(f"game {spec}: add keybinds=FILE, which says what is pressed for {names}") from error
            bound, denied = (binding.buttons, binding.axes, binding.keys), denied_columns(binding.keys)
        self.state_names = options.state_names
        self._reward = Reward(options.reward)
        self._restart = None if options.restart is None else Restart(options.restart)
        self._state = GameState(options.state, options.state_names, lambda line: print(line, file=sys.stderr))
        self._address = options.state
        self._is_fresh = False  # whether the policy saw, with the focus, the window and its state as they were then
        self._stale_since: float | None = None
        try:
            super().__init__(spec.name, frame_size=frame_size, bound=bound, **given)
        except BaseException:
            self._state.close()
            raise
        self._may_press = ~np.isin(np.arange(len(self.buttons)), denied)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        if self._restart is not None:
            self.look(seed)
            try:
                with end_is_user_error():
                    self._restart(self._hold)
            finally:
                self.hands.rest()
        return self.look(seed)

    def look(self, seed: int | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Shows the window as it is now, with all released; what happened until then does not count."""
        self._state.forget()
        with end_is_user_error():
            return super().reset(seed=seed)

    def step(self, action: Action):
        before, was_fresh = self._named(), self._is_fresh
        allowed = Action(action.buttons & self._may_press, action.axes)
        nothing = at_rest(len(self.buttons), len(self.axes))
        observation, reward, is_over, _, info = self._tick(allowed if was_fresh else nothing)
        info["waits"] = not (was_fresh and self._is_fresh)
        if not info["waits"]:
            reward, is_over = self._reward(before, self._named(), reward)
        return observation, reward, is_over, False, info

    def close(self) -> None:
        self._state.close()
        super().close()

    def _tick(self, action: Action):
        with end_is_user_error():
            return super().step(action)

    def _observe(self, is_focused: bool):
        try:
            observation, info = super()._observe(is_focused)
        except NotShown as error:
            if error.state == "closed":
                raise
            is_focused, info = False, {"focused": False}
            observation = {"frame": letterboxed(self._picture, self.frame_size)}
        self._state.receive()
        is_stale = bool(self._state.missing or self._state.late)
        self._is_fresh = is_focused and not is_stale
        if not self._is_fresh:
            self.hands.rest()
        self._require_state(is_stale and is_focused)
        return observation | {"state": self._state.values}, info

    def _require_state(self, is_waited_for: bool) -> None:
        now = time.perf_counter()
        if not is_waited_for:
            self._stale_since = None
        elif self._stale_since is None:
            self._stale_since = now
        elif now - self._stale_since > _PATIENCE:
            names = ", ".join([*self._state.missing, *self._state.late])
            raise UserError(f"{self.window}: nobody sends {names} to {self._address}: start the program that does")

    def _named(self) -> dict[str, float]:
        return dict(zip(self.state_names, map(float, self._state.values), strict=True))

    def _hold(self, seconds: float, *buttons: str, **axes: float) -> dict[str, float]:
        """Holds for so long, and waits for the focus meanwhile; returns the state by its names. For ``Restart``."""
        keys: list[Button] = []
        for name in buttons:
            if name not in self.buttons:
                if (key := key_name(name)) is None:
                    raise unknown("button of the game or key", name, self.buttons, "see to finetune.restart")
                keys.append(("key", key))
        if odd := [name for name in axes if name not in self.axes]:
            raise unknown("axis of the game", odd[0], self.axes, "see to finetune.restart")
        held = [name in buttons for name in self.buttons]
        action = Action.of(held, np.array([axes.get(name, 0.0) for name in self.axes], np.float32))
        self._state.forget()
        for _ in range(max(round(seconds * self.fps), 1)):
            while True:
                has_focus = self.desktop.has_focus(self.window.id)
                for key in keys if has_focus else ():
                    self.desktop.press(key)
                self._tick(action)
                if self._is_fresh:
                    break
        self.hands.rest()
        return self._named()


def open_game(spec: str, frame_size: tuple[int, int], live: LiveOptions | None) -> gymnasium.Env:
    """Starts a game that is learned in: one that is a window with what it needs for that."""
    parsed = GameSpec.parse(spec)
    if parsed.kind != "window":
        return make_game(spec, frame_size=frame_size)
    assert live is not None, "a window needs a state and a reward"
    return LiveGame(parsed, frame_size, live)
