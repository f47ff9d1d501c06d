"""Programs in windows as games to learn in: the state that is sent says how good a step was, and when all is over."""

import sys
import time
from typing import Any, NamedTuple

import gymnasium
import numpy as np

from BC_training.common.action import Action
from BC_training.common.errors import UserError, unknown
from BC_training.finetuning.rewards import Restart, Reward
from BC_training.games import GameSpec, make_game
from BC_training.games.window.game import WindowGame
from BC_training.games.window.platform import end_is_user_error
from BC_training.play.live.labels import Binding
from BC_training.play.live.state import GameState

_PATIENCE = 10.0  # seconds in which each value of the state is to come, and in which the window is to get the focus


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
    Reward: what the user's function makes of the state before and after a step; it also ends episodes. Where the window
    has no focus ("focused" in ``info``) nothing is done, and the reward is 0.
    ``reset`` calls the user's function that starts the game again.

    Raises:
        UserError: as ``WindowGame``, ``Reward`` and ``Restart`` do, and where a value of the state does not come.
    """

    def __init__(self, spec: GameSpec, frame_size: tuple[int, int], options: LiveOptions):
        given, bound = spec.arguments, None
        if not given["keybinds"]:
            binding = Binding.of_names(options.buttons, options.axes, f"{spec} without keybinds=FILE: the policy")
            bound = binding.buttons, binding.axes, binding.keys
        self.state_names = options.state_names
        self._reward = Reward(options.reward)
        self._restart = None if options.restart is None else Restart(options.restart)
        self._state = GameState(options.state, options.state_names, lambda line: print(line, file=sys.stderr))
        self._address = options.state
        try:
            super().__init__(spec.name, frame_size=frame_size, bound=bound, **given)
        except BaseException:
            self._state.close()
            raise

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        if self._restart is not None:
            self.look(seed)
            with end_is_user_error():
                self._restart(self._hold)
        return self.look(seed)

    def look(self, seed: int | None = None) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Releases all and shows the window as it is now; the time until then is nobody's."""
        with end_is_user_error():
            return super().reset(seed=seed)

    def step(self, action: Action):
        before = self._named()
        with end_is_user_error():
            observation, reward, is_over, _, info = super().step(action)
        if info["focused"]:
            reward, is_over = self._reward(before, self._named(), reward)
        return observation, reward, is_over, False, info

    def close(self) -> None:
        self._state.close()
        super().close()

    def _observe(self, is_focused: bool):
        observation, info = super()._observe(is_focused)
        self._receive()
        return observation | {"state": self._state.values}, info

    def _receive(self) -> None:
        """Reads what was sent; where a value is missing or old, waits for it with all released."""
        self._state.receive()
        end = time.perf_counter() + _PATIENCE
        while stale := [*self._state.missing, *self._state.late]:
            if time.perf_counter() > end:
                names = ", ".join(stale)
                raise UserError(f"{self.window}: nobody sends {names} to {self._address}: start the program that does")
            self.hands.rest()
            time.sleep(0.01)
            self._state.receive()

    def _named(self) -> dict[str, float]:
        return dict(zip(self.state_names, map(float, self._state.values), strict=True))

    def _hold(self, seconds: float, *buttons: str, **axes: float) -> dict[str, float]:
        """Holds buttons and axes, by their names, for so long; returns the state by its names. For ``Restart``."""
        for kind, given, known in (("button", buttons, self.buttons), ("axis", axes, self.axes)):
            for name in given:
                if name not in known:
                    raise unknown(f"{kind} of the game", name, known, "see to finetune.restart")
        held = [name in buttons for name in self.buttons]
        action = Action.of(held, np.array([axes.get(name, 0.0) for name in self.axes], np.float32))
        for _ in range(max(round(seconds * self.fps), 1)):
            end = time.perf_counter() + _PATIENCE
            while not super().step(action)[-1]["focused"]:
                if time.perf_counter() > end:
                    raise UserError(f"{self.window} has no focus while it is started again: click into it")
        return self._named()


def open_game(spec: str, frame_size: tuple[int, int], live: LiveOptions | None) -> gymnasium.Env:
    """Starts a game that is learned in: one that is a window with what it needs for that."""
    parsed = GameSpec.parse(spec)
    if parsed.kind != "window":
        return make_game(spec, frame_size=frame_size)
    assert live is not None, "a window needs a state and a reward"
    return LiveGame(parsed, frame_size, live)
