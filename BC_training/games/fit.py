"""A policy plays only a game that it fits."""

from typing import Any

import gymnasium

from BC_training.common.errors import UserError
from BC_training.common.preprocess import InputSpec


def require_fit(trained: str, inputs: InputSpec, env: gymnasium.Env) -> None:
    """Raises a UserError if buttons, axes, frame size or state values of ``env`` differ from ``inputs``; lists both."""
    game: Any = env.unwrapped
    compared: list[tuple[str, Any, Any]] = [("buttons", game.buttons, inputs.action_names)]
    compared.append(("axes", game.axes, inputs.axis_names))
    compared.append(("frame size", game.frame_size, inputs.recorded_size))
    if inputs.window.state:
        compared.append(("state values", game.state_names, inputs.state_names))
    for label, theirs, ours in compared:
        if tuple(theirs) != tuple(ours):
            raise UserError(f"{trained} has {label} {_listed(ours)}, the game has {_listed(theirs)}")


def _listed(values: Any) -> str:
    return f"[{', '.join(str(v) for v in values)}]"
