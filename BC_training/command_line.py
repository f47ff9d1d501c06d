"""What all commands share: their screen, the paths they are given, and how they end."""

import copy
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any

import typer
from rich.console import Console

from BC_training.common.errors import UserError
from BC_training.common.files import expand
from BC_training.runtime.devices import leave


def make_console() -> Console:
    """The screen. It shows names and messages as they are: "[v2]" is no markup to it, ":bug:" no emoji."""
    return Console(markup=False, emoji=False)


def as_command(app: typer.Typer) -> Any:
    """The click command of an app, in all of whose paths a leading ~ is the home folder.

    Shells expand none after a "=". Options of type str may be paths as well, which a slash tells.
    """
    command: Any = typer.main.get_command(app)
    waiting = [command]
    while waiting:
        one = waiting.pop()
        waiting += getattr(one, "commands", {}).values()
        for parameter in one.params:
            if parameter.type.name in ("path", "text", "str"):
                parameter.type = _expanding(parameter.type)
    return command


def _expanding(kind: Any) -> Any:
    """A click type as ``kind``, with paths expanded."""
    expanding = copy.copy(kind)

    def convert(value: Any, parameter: Any, context: Any) -> Any:
        found = kind.convert(value, parameter, context)
        is_path = isinstance(found, str) and found.startswith("~") and (kind.name == "path" or "/" in found)
        return expand(found) if is_path else found

    expanding.convert = convert
    return expanding


def refuse_game_options(arguments: Sequence[str]) -> None:
    """Raises a UserError for options that are part of the game's name now."""
    for option in ("skill", "delay"):
        if any(argument.partition("=")[0] == f"--{option}" for argument in arguments):
            raise UserError(
                f"--{option} is part of the game's name now: --game 'doom/deadly_corridor?{option}=VALUE', in quotes"
            )


def run_command(command: Callable[[], None]) -> None:
    """Runs a command; what the user can mend exits with code 2, an interruption with 130, all else with 1."""
    try:
        command()
    except UserError as error:
        _fail(str(error), 2)
    except KeyboardInterrupt:
        _fail("interrupted", 130)
    except Exception:
        traceback.print_exc()
        leave(1)


def _fail(message: str, code: int) -> None:
    print(f"error: {message}", file=sys.stderr)
    leave(code)
