"""The games to record from and play in.

Every game is a Gymnasium environment with observation ``{"frame": uint8 [3, H, W] RGB,
"state": float32 [S]}``, whose ``step`` takes an ``Action``, and which has, on ``env.unwrapped``, the names
``buttons``, ``axes`` and ``state_names``, ``frame_size`` (H, W) and ``fps``. It is named by a spec, such as
``doom/deadly_corridor?skill=5``: see ``spec.py``.
"""

import gymnasium

from BC_training.games.gym import ids
from BC_training.games.retro import ids as consoles
from BC_training.games.spec import GameSpec, Option, games_with_experts, known_games, register
from BC_training.games.window.desktop import WindowQuery

__all__ = ["GameSpec", "Option", "games_with_experts", "known_games", "make_game", "register"]

register(
    "doom",
    names=(
        *("basic", "deadly_corridor", "defend_the_center", "defend_the_line"),
        *("health_gathering_supreme", "my_way_home"),
    ),
    make="BC_training.games.doom.game:DoomGame",
    engine="vizdoom",
    options={
        "skill": Option(3, 1, 5),  # difficulty, from easiest to hardest
        # Engine tics (1/35 s) from a frame to the first in which the action chosen on it takes effect.
        "delay": Option(0, 0, 350, is_handicap=True),
        "mouse": Option(False),  # whether the player turns by an axis in place of buttons
    },
    experts="BC_training.games.doom.experts:EXPERTS",
)
register(
    "gym",
    names=ids.registered,
    find=ids.find,
    make="BC_training.games.gym.game:GymGame",
    engine=ids.engine,
    options=ids.defaults,
    experts="BC_training.games.gym.experts:EXPERTS",
)
register(
    "retro",
    names=consoles.known,
    find=consoles.find,
    make="BC_training.games.retro.game:RetroGame",
    engine="stable-retro",
    options={
        "frameskip": Option(2, 1, 60),  # frames of the console per step
        "noops": Option(30, 0, 600),  # the most of them without buttons at the start, of which the seed draws a number
        "state": Option(""),  # a saved one in which episodes start
        "scenario": Option(""),  # what gives rewards and ends episodes
    },
)
register(
    "window",
    names=(),  # they come and go
    find=lambda name: str(WindowQuery.parse(name)),
    make="BC_training.games.window.game:WindowGame",
    engine="gymnasium",
    options={
        "fps": Option(20.0, 1, 240),
        "region": Option(""),  # the part that is seen: x,y,width,height in pixels
        "keybinds": Option(""),  # the file that says which buttons and axes there are
    },
)


def make_game(
    game: str | GameSpec, *, frame_size: tuple[int, int] = (288, 512), render_mode: str | None = None
) -> gymnasium.Env:
    """Starts a game.

    Args:
        game: its spec.
        frame_size: (H, W) of the frames in pixels.
        render_mode: None or ``"rgb_array"``.

    Raises:
        UserError: unknown game or option (with the nearest match), or an argument out of range.
    """
    spec = GameSpec.parse(str(game))
    return spec.make(spec.name, frame_size=frame_size, render_mode=render_mode, **spec.arguments)
