"""Games of consoles, played by stable-retro's emulators, named ``retro/GAME``."""

import weakref
from typing import Any

import gymnasium
import numpy as np
import stable_retro
from gymnasium import spaces
from stable_retro.data import Integrations, get_romfile_path, list_scenarios, list_states

from BC_training.common.action import Action
from BC_training.common.errors import UserError, first_line, unknown
from BC_training.common.preprocess import resize_frames
from BC_training.games.spaces import action_space, observation_space

_LONGEST = 30 * 60  # seconds of an episode, since not every integration ends one
_FIRST = ("score", "lives")  # of the state, where the integration has them

_open: "weakref.WeakSet[RetroGame]" = weakref.WeakSet()


class PadActions(spaces.Tuple):
    """The space of ``Action``, of which the combinations are drawn that the integration has use for.

    Others, such as a press of START, can stop the game or switch it off and on.

    Args:
        combinations: [groups][choices][A]: one choice of each group is held.
    """

    def __init__(self, combinations: list[np.ndarray]):
        super().__init__(action_space(combinations[0].shape[1], 0).spaces)
        self._combinations = combinations

    def draw(self, rng: np.random.Generator) -> Action:
        return Action.of(np.any([group[rng.integers(len(group))] for group in self._combinations], axis=0))


class RetroGame(gymnasium.Env):
    """A game of a console.

    Observation: ``{"frame": uint8 [3, H, W] RGB, "state": float32 [S]}``. The state has the values that the
    integration reads from the console's memory: score and lives where there are any, then the others by their names.
    Action: the pad's buttons held until the next frame, in any combination; there are no axes.
    Reward: the integration's own. It ends the episode, too, which is otherwise cut off after half an hour.
    The same seed and the same actions give the same episode.

    Args:
        name: one of stable-retro's, such as "Airstriker-Genesis-v0".
        frame_size: (H, W) of the frames in pixels.
        frameskip: frames of the console per step, all with the same buttons. Of its 60 a second, half are as many as
            people and policies answer in time.
        noops: an episode starts after 0 to so many frames of the console without buttons; its seed says how many.
            Nothing else is random.
        state: the saved state in which episodes start; "" for the integration's own.
        scenario: what gives rewards and ends episodes; "" for the integration's own.
        render_mode: with ``"rgb_array"`` ``render()`` returns what the console draws, uint8 [H', W', 3], enlarged by a
            whole factor to at least the height of the frames; frames do not depend on it.

    Raises:
        UserError: no ROM, unknown state or scenario, another console that is open in this process (an emulator can be
            there once), or an emulator that does not start.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 (Gymnasium's)

    def __init__(
        self,
        name: str,
        *,
        frame_size: tuple[int, int],
        frameskip: int,
        noops: int,
        state: str,
        scenario: str,
        render_mode: str | None = None,
    ):
        self.frame_size, self.render_mode = frame_size, render_mode
        self._frameskip, self._noops = frameskip, noops
        self._game = f"retro/{name}"
        self._console: Any = self._start(name, state, scenario)
        _open.add(self)
        # Pads of few buttons have places without one.
        self._places = np.array([i for i, button in enumerate(self._console.buttons) if button is not None])
        self.buttons = tuple(str(self._console.buttons[i]).lower() for i in self._places)
        self.axes: tuple[str, ...] = ()
        values = sorted(self._console.data.list_variables())
        self.state_names = (*(n for n in _FIRST if n in values), *(n for n in values if n not in _FIRST))
        self.fps = self._console.em.get_screen_rate() / frameskip
        useful = [np.array(masks)[:, None] >> self._places & 1 for masks in self._console.button_combos]
        self.action_space = PadActions([group.astype(bool) for group in useful])
        self.observation_space = observation_space(frame_size, len(self.state_names))
        self._steps = 0
        self._image = np.zeros((1, 1, 3), np.uint8)

    def _start(self, name: str, state: str, scenario: str) -> Any:
        every = Integrations.ALL
        for what, given, known in (("state", state, list_states), ("scenario", scenario, list_scenarios)):
            if given and given not in known(name, every):
                raise unknown(f"{what} of {self._game}", given, known(name, every))
        try:
            get_romfile_path(name, every)
        except FileNotFoundError:
            raise UserError(
                f"game {self._game}: its ROM is not there; `uv run python -m stable_retro.import FOLDER` takes it from "
                "a folder of yours"
            ) from None
        if others := [other._game for other in _open]:
            raise UserError(
                f"game {self._game}: {others[0]} is open in this process, which can play one console: close it first"
            )
        try:
            env_class: Any = stable_retro.RetroEnv
            console = env_class(
                name,
                state=state or stable_retro.State.DEFAULT,
                scenario=scenario or None,
                use_restricted_actions=stable_retro.Actions.ALL,
                inttype=every,
                render_mode="rgb_array",
            )
        except Exception as error:
            raise UserError(f"game {self._game} cannot be started: {first_line(error)}") from error
        if console.initial_state is None:  # it starts when it is switched on, which happens once
            console.initial_state = console.em.get_state()
        return console

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        self._image, _ = self._console.reset()
        self._steps = 0
        for _ in range(self.np_random.integers(self._noops + 1)):
            self._image = self._console.step(np.zeros(self._console.num_buttons, np.int8))[0]
        return self._observe(), {}

    def step(self, action: Action):
        buttons = np.asarray(action[0], bool)
        if buttons.shape != (len(self.buttons),):
            raise ValueError(f"buttons have shape {buttons.shape}, expected ({len(self.buttons)},)")
        held = np.zeros(self._console.num_buttons, np.int8)
        held[self._places] = buttons
        reward, over = 0.0, False
        for _ in range(self._frameskip):
            self._image, gained, over, _, _ = self._console.step(held)
            reward += float(gained)
            if over:
                break
        self._steps += 1
        return self._observe(), reward, over, self._steps >= _LONGEST * self.fps, {}

    def render(self) -> np.ndarray | None:
        if self.render_mode != "rgb_array":
            return None
        factor = max(1, -(-self.frame_size[0] // self._image.shape[0]))
        return self._image.repeat(factor, 0).repeat(factor, 1)

    def close(self) -> None:
        self._console.close()
        _open.discard(self)

    def _observe(self) -> dict[str, np.ndarray]:
        frame = resize_frames(np.moveaxis(self._image, -1, 0)[None], self.frame_size)[0]
        values = self._console.data.lookup_all()
        state = np.array([values[name] for name in self.state_names], np.float32)
        return {"frame": np.array(frame), "state": state}
