"""The games to record from and play in.

Every game is a Gymnasium environment with observation ``{"frame": uint8 [3, H, W] RGB,
"state": float32 [S]}``, action ``MultiBinary(A)`` and, on ``env.unwrapped``, ``action_names``,
``state_names``, ``frame_size`` (H, W) and ``fps``.
"""

import gymnasium

from BC_training.common.errors import unknown
from BC_training.games.doom.game import SCENARIOS, DoomGame

GAMES = tuple(f"doom/{scenario}" for scenario in SCENARIOS)


def require_game(game: str) -> None:
    """Raises a UserError, with the nearest match, if there is no such game."""
    if game not in GAMES:
        raise unknown("game", game, GAMES)


def make_game(
    game: str,
    *,
    frame_size: tuple[int, int] = (288, 512),
    skill: int = 3,
    delay: int = 0,
    render_mode: str | None = None,
) -> gymnasium.Env:
    """Starts a game.

    Args:
        game: one of ``GAMES``.
        frame_size: (H, W) of the frames in pixels.
        skill: difficulty, 1 to 5, for games that have one.
        delay: engine tics from a frame to the first in which the action chosen on it is held.
        render_mode: None or ``"rgb_array"``.

    Raises:
        UserError: unknown game (with the nearest match) or an argument out of range.
    """
    require_game(game)
    scenario = game.removeprefix("doom/")
    return DoomGame(scenario, frame_size=frame_size, skill=skill, delay=delay, render_mode=render_mode)
