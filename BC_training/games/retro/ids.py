"""The names of games ``retro/GAME``: those that stable-retro has an integration of, with or without a ROM."""

from functools import cache
from importlib.util import find_spec

from BC_training.common.errors import UserError, unknown

INSTALL = "uv sync --extra retro"


def find(name: str) -> str:
    """``name``; raises a UserError, with the nearest match, for one that no game has, or without stable-retro."""
    if find_spec("stable_retro") is None:
        raise UserError(f"game retro/{name}: stable-retro, which runs on Linux, is not installed: {INSTALL}")
    if name not in (names := known()):
        raise unknown("game", f"retro/{name}", (f"retro/{other}" for other in names))
    return name


@cache
def known() -> tuple[str, ...]:
    """All names; none without stable-retro."""
    if find_spec("stable_retro") is None:
        return ()
    from stable_retro.data import Integrations, list_games

    return tuple(list_games(Integrations.ALL))
