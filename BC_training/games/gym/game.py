"""Any environment that Gymnasium has registered, named ``gym/ID`` or ``gym/module:ID``."""

import inspect
import math
import os
import tempfile
import warnings
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import load_env_creator

from BC_training.common.action import Action
from BC_training.common.errors import UserError, first_line, unknown
from BC_training.common.preprocess import resize_frames
from BC_training.games.gym.actions import ActionMap, map_actions
from BC_training.games.gym.ids import INSTALL
from BC_training.games.gym.names import DOCUMENTED, Names
from BC_training.games.gym.observations import StateReader, image_reader
from BC_training.games.spaces import action_space, observation_space

# What draws without a window says nothing of itself, nor that there is no desktop.
os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")
os.environ.setdefault("XDG_RUNTIME_DIR", tempfile.gettempdir())

_ATARI_RATE = 60  # frames per second of the console; what the metadata say is wrong
_UNKNOWN_RATE = 30  # frames per second of an environment that does not say its own
_LONGEST = 30 * 60  # seconds of an episode in an environment without a limit, as Atari's games have it
_TURN_BASED = ("minigrid", "gymnasium.envs.toy_text", "gymnasium.envs.tabular")  # which wait for the player


class GymActions(spaces.Tuple):
    """The space of ``Action``, of which actions of an environment's own space are drawn, each as likely as the next."""

    def __init__(self, space: spaces.Space, actions: ActionMap):
        super().__init__(action_space(len(actions.buttons), len(actions.axes)).spaces)
        self._space, self._actions = space, actions

    def draw(self, rng: np.random.Generator) -> Action:
        self._space.seed(int(rng.integers(2**31)))
        return self._actions.action_of(self._space.sample())


class GymGame(gymnasium.Env):
    """An environment of Gymnasium.

    Observation: ``{"frame": uint8 [3, H, W] RGB, "state": float32 [S]}``. The frame is the environment's observation
    where that is a picture, and S is 0; otherwise it is what the environment renders, and the state is made of the
    observation by ``StateReader``.
    Action: ``actions.py`` says which buttons and axes there are, and what they do.
    Reward: the environment's own. Where it has no limit of steps, an episode is cut off after half an hour.
    The same seed and the same actions give the same episode, if the environment itself keeps to its seed.

    Args:
        name: a registered ID, or ``module:ID``.
        frame_size: (H, W) of the frames in pixels.
        render_mode: with ``"rgb_array"`` ``render()`` returns what the environment draws, uint8 [H', W', 3]; frames do
            not depend on it.
        options: of ``gymnasium.make`` and the environment; lists become tuples.

    Attributes:
        env: the environment itself.
        is_turn_based: whether the game waits for the player, and has no rate of its own.

    Raises:
        UserError: unknown or wrong options, a package that is not installed, actions that are no buttons and axes, or
            nothing to see.
    """

    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012 (Gymnasium's)

    def __init__(self, name: str, /, *, frame_size: tuple[int, int], render_mode: str | None = None, **options: Any):
        self.frame_size, self.render_mode = frame_size, render_mode
        game, own = f"gym/{name}", gymnasium.spec(name.rpartition(":")[2])
        names = DOCUMENTED.get(own.name, Names())
        self.env = _make(game, own, options)
        try:
            self._actions = map_actions(self.env, game, names)
            self._read_image = image_reader(self.env.observation_space)
            self._read_state: Callable[[Any], np.ndarray] = lambda _: np.zeros(0, np.float32)
            self.state_names: tuple[str, ...] = ()
            if self._read_image is None:
                self._read_state = reader = StateReader(self.env.observation_space, names.state)
                self.state_names = reader.names
                self._require_picture(game)
        except BaseException:
            self.env.close()
            raise
        self.buttons, self.axes = self._actions.buttons, self._actions.axes
        self.action_space = GymActions(self.env.action_space, self._actions)
        self.observation_space = observation_space(frame_size, len(self.state_names))
        module = type(self.env.unwrapped).__module__
        self.is_turn_based = module.startswith(_TURN_BASED)
        self.fps = self._rate(module)
        spec = self.env.spec
        self._longest = round(_LONGEST * self.fps) if spec is None or spec.max_episode_steps is None else math.inf
        self._steps = 0
        self._image = np.zeros((1, 1, 3), np.uint8)

    def _rate(self, module: str) -> float:
        if module.startswith("ale_py") and self.env.spec is not None:
            skip = self.env.spec.kwargs.get("frameskip", 4)
            return _ATARI_RATE / (skip if isinstance(skip, int) else (skip[0] + skip[1] - 1) / 2)  # drawn from a range
        return float(self.env.metadata.get("render_fps") or _UNKNOWN_RATE)

    def _require_picture(self, game: str) -> None:
        picture = None
        if self.env.render_mode == "rgb_array":
            self.env.reset(seed=0)
            picture = self.env.render()
        if (
            not isinstance(picture, np.ndarray)
            or picture.ndim != 3
            or picture.shape[2] < 3
            or picture.dtype != np.uint8
        ):
            raise UserError(f"{game} cannot be seen: its observations are no pictures, and it renders none (rgb_array)")

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        observation, info = self.env.reset(seed=seed, options=options)
        self._steps = 0
        return self._observe(observation), info

    def step(self, action: Action):
        buttons, axes = np.asarray(action[0], bool), np.asarray(action[1], np.float32)
        if (buttons.shape, axes.shape) != ((len(self.buttons),), (len(self.axes),)):
            raise ValueError(f"buttons and axes have shapes {buttons.shape} and {axes.shape}")
        raw = self._actions.raw(Action(buttons, axes))
        observation, reward, terminated, truncated, info = self.env.step(raw)
        self._steps += 1
        truncated = bool(truncated) or self._steps >= self._longest
        return self._observe(observation), float(reward), bool(terminated), truncated, info

    def action_of(self, raw: Any) -> Action:
        """The buttons and axes of an action of ``env``."""
        return self._actions.action_of(raw)

    def render(self) -> np.ndarray | None:
        if self.render_mode != "rgb_array":
            return None
        # Where frames are rendered, they must not be so twice: LunarLander's smoke fades each time.
        if self._read_image is None or self.env.render_mode != "rgb_array":
            return self._image
        image: Any = self.env.render()
        return image

    def close(self) -> None:
        env = self.__dict__.pop("env", None)  # Atari's engine complains if anything still holds it when Python ends
        if env is not None:
            env.close()

    def _observe(self, observation: Any) -> dict[str, np.ndarray]:
        rendered: Any = self.env.render() if self._read_image is None else self._read_image(observation)
        self._image = rendered[..., :3]
        frame = resize_frames(np.moveaxis(self._image, -1, 0)[None], self.frame_size)[0]
        return {"frame": np.ascontiguousarray(frame), "state": self._read_state(observation)}


def _make(game: str, spec: Any, options: dict[str, Any]) -> gymnasium.Env:
    """Starts the environment of a registered id; raises a UserError where that is not possible."""
    options = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    try:
        parameters = inspect.signature(
            load_env_creator(spec.entry_point) if isinstance(spec.entry_point, str) else spec.entry_point
        ).parameters
        of_make = {"max_episode_steps", "disable_env_checker"}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            for key in options.keys() - parameters.keys() - of_make:
                raise unknown(f"option of {game}", key, {*parameters, *of_make} - {"self", "render_mode"})
        drawn = {"render_mode": "rgb_array"}
        if "render_mode" not in parameters and not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
            drawn = {}
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*render_mode")  # one that it lacks is found out here
            return gymnasium.make(spec, **{"disable_env_checker": True, **drawn, **options})
    except UserError:
        raise
    except Exception as error:
        if isinstance(error, gymnasium.error.DependencyNotInstalled) and "box2d" in str(spec.entry_point):
            raise UserError(f"game {game}: Box2D is not installed: {INSTALL}") from error
        raise UserError(f"game {game} cannot be started: {first_line(error)}") from error
