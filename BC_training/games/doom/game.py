"""ViZDoom scenarios as Gymnasium environments, named ``doom/<scenario>``.

With ``mouse`` the player turns by the axis "turn", in degrees to the right until the next frame, not by the buttons
turn_left and turn_right. The engine's look up and down is no axis: Doom aims up and down by itself.
"""

import contextlib
import itertools
import math
import tempfile
from collections import deque
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
import psutil
import vizdoom

from BC_training.common.action import Action
from BC_training.common.errors import GameDied, UserError, first_line
from BC_training.common.preprocess import resize_frames
from BC_training.games.doom.engine_calls import EngineCalls
from BC_training.games.spaces import action_space, observation_space

_MAPPED = ("health_gathering_supreme", "my_way_home")  # whose experts need the map, which costs time
_LONGEST = 2100  # tics, of a scenario that would let a player live for ever
TICS_PER_SECOND = 35  # the engine's clock
NATIVE_SIZE = (288, 512)
# Degrees that a hand on a mouse turns in a frame of two tics: in the demos of Freedoom nine of ten turns are below 17,
# 99 of 100 below 45.
FAST_TURN = 20.0
_TURN = vizdoom.Button.TURN_LEFT_RIGHT_DELTA  # degrees to the right, in each tic
_TURN_BUTTONS = (vizdoom.Button.TURN_LEFT, vizdoom.Button.TURN_RIGHT)
_ANGLES = 65536  # the directions that the engine knows

# Engine resolutions, smallest first: the smallest that covers the frame size is rendered and averaged down (256x144
# renders 2.5x as fast as 512x288).
RENDER_SIZES = {
    (144, 256): vizdoom.ScreenResolution.RES_256X144,
    (288, 512): vizdoom.ScreenResolution.RES_512X288,
    (360, 640): vizdoom.ScreenResolution.RES_640X360,
    (576, 1024): vizdoom.ScreenResolution.RES_1024X576,
    (720, 1280): vizdoom.ScreenResolution.RES_1280X720,
    (1080, 1920): vizdoom.ScreenResolution.RES_1920X1080,
}

# Living monsters by the engine's name, and their number in the state, where 0 is "none". A dead one has another name.
ENEMY_TYPES = {
    "Zombieman": 1,
    "ShotgunGuy": 2,
    "ChaingunGuy": 3,
    "Demon": 4,
    "MarineChainsawVzd": 5,
    "DoomImp": 6,
    "Cacodemon": 7,
}

STATE_NAMES = (
    "health",  # 0-100, can exceed the maximum with bonuses
    "max_health",
    "ammo",  # bullets
    "weapon",  # slot of the weapon in hand, categorical; -1 while none is raised
    "kills",
    "player_x",  # map units
    "player_y",
    "player_z",
    "player_angle",  # degrees, 0 is +x, counter-clockwise
    "enemy_x",  # nearest living enemy; the player's own position when none is left
    "enemy_y",
    "enemy_z",
    "enemy_angle",  # degrees, the way it faces; the player's own when none is left
    "enemy_type",  # ENEMY_TYPES, 0 when none is left
)
_MAX_HEALTH = 100.0  # Doom's, which the engine does not report


class DoomGame(gymnasium.Env):
    """One ViZDoom scenario.

    Observation: ``{"frame": uint8 [3, H, W] RGB, "state": float32 [14]}`` (``STATE_NAMES``).
    Action: the buttons held during the next ``frame_skip`` tics, and with ``mouse`` the degrees to turn right in them:
    the same in each tic, rounded to one of the engine's 65,536 directions.
    Reward: the scenario's own, summed over those tics.
    The same seed and the same actions give the same episode.

    Args:
        scenario: one of ViZDoom's, such as "basic".
        frame_size: (H, W) of the frames in pixels.
        frame_skip: engine tics (1/35 s) per step.
        skill: difficulty, 1 (easiest) to 5.
        delay: tics from a frame to the first in which its action takes effect.
        mouse: whether the player turns by an axis.
        render_mode: with ``"rgb_array"`` ``render()`` returns what the engine drew, uint8 [H', W', 3], at least of the
            frame size; frames do not depend on it.

    Raises:
        UserError: a frame larger than the engine draws, or an engine that does not start.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": TICS_PER_SECOND / 2}  # noqa: RUF012 (Gymnasium's)

    def __init__(
        self,
        scenario: str,
        *,
        frame_size: tuple[int, int] = NATIVE_SIZE,
        frame_skip: int = 2,
        skill: int,
        delay: int,
        mouse: bool,
        render_mode: str | None = None,
    ):
        covering = [s for s in RENDER_SIZES if s[0] >= frame_size[0] and s[1] >= frame_size[1]]
        if not covering:
            raise UserError(f"frame size {frame_size[0]}x{frame_size[1]} is larger than Doom draws (1080x1920)")
        self.frame_size = frame_size
        self.frame_skip = frame_skip
        self._delay = delay
        self._coming: deque[tuple[float, ...]] = deque()  # the engine's inputs in the tics ahead
        self.render_mode = render_mode
        self.fps = TICS_PER_SECOND / frame_skip
        self.state_names = STATE_NAMES
        self._render_size = covering[0]
        self._game = self._configured(scenario, skill, mouse)
        self.buttons = tuple(b.name.lower() for b in self._game.get_available_buttons() if b != _TURN)
        self.axes = ("turn",) if mouse else ()
        self.action_space = action_space(len(self.buttons), len(self.axes), FAST_TURN)
        self.observation_space = observation_space(frame_size, len(STATE_NAMES))
        self._screen = np.zeros((3, *self._render_size), np.uint8)
        self._last: dict[str, np.ndarray] | None = None
        self.objects: list[Any] = []  # the engine's: name, position_x/y/z, angle; for experts
        self.sectors: list[Any] = []  # and the map: lines with x1, y1, x2, y2, is_blocking; of _MAPPED
        self._calls = EngineCalls()
        self._start()  # last: whoever interrupts what follows does not know of the engine

    def _configured(self, scenario: str, skill: int, mouse: bool) -> vizdoom.DoomGame:
        game = vizdoom.DoomGame()
        game.load_config(f"{vizdoom.scenarios_path}/{scenario}.cfg")
        if mouse:
            pressed = [button for button in game.get_available_buttons() if button not in _TURN_BUTTONS]
            game.set_available_buttons([*pressed, _TURN])
        game.set_screen_resolution(RENDER_SIZES[self._render_size])
        game.set_screen_format(vizdoom.ScreenFormat.CRCGCB)  # [3, H, W] RGB
        game.set_window_visible(False)
        game.set_sound_enabled(False)
        game.set_objects_info_enabled(True)
        game.set_sectors_info_enabled(scenario in _MAPPED)
        game.set_doom_skill(skill)
        if game.get_episode_timeout() == 0:
            game.set_episode_timeout(_LONGEST)
        variable = vizdoom.GameVariable
        game.set_available_game_variables(
            [
                variable.HEALTH,
                variable.AMMO2,
                variable.SELECTED_WEAPON,
                variable.KILLCOUNT,
                variable.POSITION_X,
                variable.POSITION_Y,
                variable.POSITION_Z,
                variable.ANGLE,
            ]
        )
        return game

    def _start(self) -> None:
        # The engine writes into the working directory, and two that start in one at the same time can fail.
        self._directory = tempfile.TemporaryDirectory(prefix="doom-", ignore_cleanup_errors=True)
        before = psutil.Process().children()
        try:
            with contextlib.chdir(self._directory.name):
                self._game.init()
            started = (process for process in psutil.Process().children() if process not in before)
            self._calls.engine = next((process for process in started if "vizdoom" in process.name()), None)
        except BaseException as error:
            self._game.close()
            self._calls.close()
            self._directory.cleanup()
            if not isinstance(error, Exception):
                raise
            raise UserError(
                f"the Doom engine did not start ({first_line(error)}); "
                "run BC_training/scripts/test_setup.py to check this machine"
            ) from error

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None):
        super().reset(seed=seed)
        # Without a seed the episode follows from the generator, as Gymnasium has it.
        self._game.set_seed(seed if seed is not None else int(self.np_random.integers(2**31)))
        self._coming = deque([(0.0,) * (len(self.buttons) + len(self.axes))] * self._delay)

        def begin() -> vizdoom.GameState | None:
            self._game.new_episode()
            return self._game.get_state()

        return self._observe(self._call(begin)), {}

    def step(self, action: Action):
        buttons, axes = np.asarray(action[0], bool), np.asarray(action[1], np.float64)
        if (buttons.shape, axes.shape) != (expected := ((len(self.buttons),), (len(self.axes),))):
            raise ValueError(f"buttons and axes have the shapes {buttons.shape} and {axes.shape}, expected {expected}")
        turns = np.rint(axes / self.frame_skip / 360 * _ANGLES)
        # The engine rounds down, so half a direction more keeps it from falling short of what is asked for.
        degrees = (np.clip(turns, -_ANGLES // 2, _ANGLES // 2 - 1) + 0.5) / _ANGLES * 360
        self._coming.extend([(*buttons.astype(float).tolist(), *degrees.tolist())] * self.frame_skip)
        tics = [self._coming.popleft() for _ in range(self.frame_skip)]

        def advance() -> tuple[vizdoom.GameState | None, float, bool, bool]:
            reward, over = 0.0, False
            for inputs, group in itertools.groupby(tics):
                if not over:
                    reward += self._game.make_action(list(inputs), len(list(group)))
                    over = self._game.is_episode_finished()
            timeout = over and self._game.is_episode_timeout_reached() and not self._game.is_player_dead()
            return self._game.get_state(), reward, over, timeout

        state, reward, over, timeout = self._call(advance)
        return self._observe(state), reward, over and not timeout, timeout, {}

    def render(self) -> np.ndarray | None:
        return np.ascontiguousarray(np.moveaxis(self._screen, 0, -1)) if self.render_mode == "rgb_array" else None

    def close(self) -> None:
        with contextlib.suppress(GameDied):
            self._calls(self._game.close)
        self._calls.close()
        self._directory.cleanup()

    def _call(self, function: Callable[[], Any]) -> Any:
        """What ``function``, which calls the engine, returns. Raises GameDied where its process has ended."""
        try:
            return self._calls(function)
        except (vizdoom.ViZDoomErrorException, vizdoom.ViZDoomUnexpectedExitException) as error:
            raise GameDied(f"the Doom engine died ({first_line(error)})") from error
        except vizdoom.ViZDoomIsNotRunningException as error:
            raise GameDied("the Doom engine is not running") from error

    def _observe(self, state: vizdoom.GameState | None) -> dict[str, np.ndarray]:
        if state is None:  # the episode is over and the engine has nothing more to show
            assert self._last is not None
            return self._last
        self._screen = state.screen_buffer
        self.objects, self.sectors = state.objects, state.sectors
        frame = resize_frames(self._screen[None], self.frame_size)[0]
        self._last = {"frame": frame.copy(), "state": _state_vector(state)}
        return self._last


def _state_vector(state: vizdoom.GameState) -> np.ndarray:
    """float32 [14] in the order of STATE_NAMES."""
    assert state.game_variables is not None
    health, ammo, weapon, kills, x, y, z, angle = state.game_variables
    enemies = [o for o in state.objects if o.name in ENEMY_TYPES]
    near = min(enemies, key=lambda o: math.hypot(o.position_x - x, o.position_y - y), default=None)
    enemy = (x, y, z, angle, 0)
    if near is not None:
        enemy = (near.position_x, near.position_y, near.position_z, near.angle, ENEMY_TYPES[near.name])
    return np.array([health, _MAX_HEALTH, ammo, weapon, kills, x, y, z, angle, *enemy], np.float32)
