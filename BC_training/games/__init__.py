"""The games to record from and play in.

Every game is a Gymnasium environment with observation ``{"frame": uint8 [3, H, W] RGB,
"state": float32 [S]}``, action ``MultiBinary(A)`` and, on ``env.unwrapped``, ``action_names``,
``state_names`` and ``fps``.
"""

import gymnasium

from BC_training.common.errors import unknown

GAMES = ("doom/deadly_corridor",)


def make_game(
    game: str, *, frame_size: tuple[int, int] = (288, 512), skill: int = 3, render_mode: str | None = None
) -> gymnasium.Env:
    """Starts a game.

    Args:
        game: one of ``GAMES``.
        frame_size: (H, W) of the frames in pixels.
        skill: difficulty, 1 to 5, for games that have one.
        render_mode: None or ``"rgb_array"``.

    Raises:
        UserError: unknown game (with the nearest match) or an argument out of range.
    """
    if game not in GAMES:
        raise unknown("game", game, GAMES)
    # Here, not above: configs and datasets are read on machines without a game.
    from BC_training.games.doom import DoomGame

    return DoomGame(game.removeprefix("doom/"), frame_size=frame_size, skill=skill, render_mode=render_mode)
