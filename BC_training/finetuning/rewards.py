"""The user's own functions, which a config names: a reward on the state, and what starts a window's game again."""

import importlib.util
import inspect
import math
from collections.abc import Callable, Mapping
from functools import cache
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
        place: as of ``_UsersFunction``.
    """

    def __init__(self, place: str):
        self._function = _UsersFunction("finetune.reward", place, ("before", "after", "reward"))

    def __call__(self, before: State, after: State, reward: float) -> tuple[float, bool]:
        """The reward of a step, and whether the episode is over; a UserError if the function fails."""
        answer = self._function(dict(before), dict(after), reward)
        value, is_over = answer if isinstance(answer, tuple) and len(answer) == 2 else (answer, False)
        if not isinstance(value, Real) or not math.isfinite(value):
            raise UserError(f"{self._function} returned {answer!r}: it is to return a finite number")
        return float(value), bool(is_over)


class Restart:
    """``function(hold)``: brings a window's game to where an episode begins.

    ``hold(seconds, *buttons, **axes)`` holds some of the game's buttons, or none, and returns the state after that.

    Args:
        place: as of ``_UsersFunction``.
    """

    def __init__(self, place: str):
        self._function = _UsersFunction("finetune.restart", place, ("hold",))

    def __call__(self, hold: Callable[..., State]) -> None:
        """Starts the game again; a UserError if the function fails."""
        self._function(hold)


class _UsersFunction:
    """A function that the user wrote.

    Args:
        setting: of the config, which names it.
        place: "FILE.py:FUNCTION", or "MODULE:FUNCTION" of what can be imported. It runs code: it is to come from what
            the user wrote, not from data.
        arguments: the names of what it is called with.

    Raises:
        UserError: no such file, module or function, or it cannot be imported or called so.
    """

    def __init__(self, setting: str, place: str, arguments: tuple[str, ...]):
        self._name = f"{setting}={place}"
        source, colon, name = place.rpartition(":")
        if not colon or not source or not name:
            raise UserError(f"{self}: write FILE.py:FUNCTION or MODULE:FUNCTION")
        try:
            module = _imported(source)
        except UserError as error:
            raise UserError(f"{self}: {error}") from error
        except Exception as error:
            raise UserError(f"{self} cannot be imported: {_described(error)}") from error
        functions = [key for key, value in vars(module).items() if inspect.isfunction(value)]
        if name not in vars(module):
            raise unknown(f"function of {source}", name, functions, f"set {setting}")
        self._function: Callable[..., Any] = vars(module)[name]
        try:
            inspect.signature(self._function).bind(*arguments)
        except TypeError as error:
            call = f"{name}({', '.join(arguments)})"
            raise UserError(f"{self} cannot be called as {call}: {first_line(error)}") from error

    def __str__(self) -> str:
        return self._name

    def __call__(self, *arguments: Any) -> Any:
        """What it returns; a UserError if it fails."""
        try:
            return self._function(*arguments)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"{self} failed: {_described(error)}") from error


@cache  # functions of one file share its variables
def _imported(source: str) -> ModuleType:
    """The module or the file ``source``; what it raises is the user's own error."""
    if not source.endswith(".py"):
        return import_module(source)
    path = Path(expand(source))
    if not path.is_file():
        raise UserError(f"there is no file {path.absolute()}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _described(error: Exception) -> str:
    """The error, and the line of the user's code at which it was raised."""
    frames = inspect.getinnerframes(error.__traceback__) if error.__traceback__ else []
    place = f" (line {frames[-1].lineno} of {Path(frames[-1].filename).name})" if len(frames) > 1 else ""
    return f"{type(error).__name__}: {first_line(error)}{place}"
