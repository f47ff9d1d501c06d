"""The user's own reward: a function on the state, which a config names."""

import importlib.util
import inspect
import math
from collections.abc import Callable, Mapping
from importlib import import_module
from numbers import Real
from pathlib import Path
from types import ModuleType
from typing import Any

from BC_training.common.errors import UserError, first_line, unknown
from BC_training.common.files import expand

State = Mapping[str, float]  # the state's values by their names


class Reward:
    """``function(before, after, reward)``: what is learnt from in place of the game's own ``reward`` of a step.

    The function gets the state before and after the step as ``dict[str, float]``. It returns a number, or a pair of
    a number and whether the episode is over.

    Args:
        place: "FILE.py:FUNCTION", or "MODULE:FUNCTION" of what can be imported. It runs code: it is to come from what
            the user wrote, not from data.

    Raises:
        UserError: no such file, module or function, or it cannot be imported or called so.
    """

    def __init__(self, place: str):
        self._place = place
        source, colon, name = place.rpartition(":")
        if not colon or not source or not name:
            raise UserError(f"finetune.reward={place}: write FILE.py:FUNCTION or MODULE:FUNCTION")
        module = self._imported(source)
        functions = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        if name not in vars(module):
            raise unknown(f"function of {source}", name, functions, "set finetune.reward")
        self._function: Callable[[State, State, float], Any] = vars(module)[name]
        try:
            inspect.signature(self._function).bind({}, {}, 0.0)
        except TypeError as error:
            raise UserError(
                f"finetune.reward={place} cannot be called as {name}(before, after, reward): {first_line(error)}"
            ) from error

    def __call__(self, before: State, after: State, reward: float) -> tuple[float, bool]:
        """The reward of a step, and whether the episode is over; a UserError if the function fails."""
        try:
            answer = self._function(dict(before), dict(after), reward)
        except Exception as error:
            raise UserError(f"finetune.reward={self._place} failed: {_described(error)}") from error
        value, is_over = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, False)
        if not isinstance(value, Real) or not math.isfinite(value):
            raise UserError(f"finetune.reward={self._place} returned {answer!r}: it is to return a finite number")
        return float(value), bool(is_over)

    def _imported(self, source: str) -> ModuleType:
        try:
            if not source.endswith(".py"):
                return import_module(source)
            path = Path(expand(source))
            if not path.is_file():
                raise UserError(f"finetune.reward={self._place}: there is no file {path.absolute()}")
            spec = importlib.util.spec_from_file_location(path.stem, path)
            assert spec is not None
            assert spec.loader is not None
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"finetune.reward={self._place} cannot be imported: {_described(error)}") from error
        return module


def _described(error: Exception) -> str:
    """The error, and the line of the user's code at which it was raised."""
    frames = inspect.getinnerframes(error.__traceback__) if error.__traceback__ else []
    place = f" (line {frames[-1].lineno} of {Path(frames[-1].filename).name})" if len(frames) > 1 else ""
    return f"{type(error).__name__}: {first_line(error)}{place}"
