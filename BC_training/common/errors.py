"""The one exception for bad input, and "did you mean"."""

import difflib
import re
from collections.abc import Iterable
from typing import Any

_MOST_LISTED = 100  # names that one line may have


class UserError(Exception):
    """Something the user can mend. The message is one line: what, where, and what to do.

    The command line prints it and exits with code 2, without a traceback. Characters that cannot be printed,
    from names in data, are written as Python escapes them: "\\ud800".
    """

    def __init__(self, message: str):
        line = " ".join(message.splitlines())
        super().__init__("".join(c if c.isprintable() else ascii(c)[1:-1] for c in line))


class GameDied(Exception):
    """A game's process ended in the middle of an episode; a new one can play it from its start."""


def unknown(kind: str, name: str, known: Iterable[str], remedy: str = "") -> UserError:
    """The error for a name that does not exist: the nearest match, the list (of very many, a part), the remedy."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    listing = ", ".join(known) if known else "none"
    if len(known) > _MOST_LISTED:
        listing = f"{len(known)}, such as {', '.join(difflib.get_close_matches(name, known, n=8, cutoff=0))}"
    return UserError(f"unknown {kind} '{name}'{hint} (known: {listing}){'; ' + remedy if remedy else ''}")


def first_line(error: BaseException) -> str:
    """The first line of a library's error, without TensorStore's notes; the error's type where it has no message."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__)
    return re.split(r" \[(?:source locations|tensorstore_spec)=", line)[0][:300]


def require(condition: bool, key: str, value: Any, rule: str) -> None:
    """Raises a UserError unless ``condition`` holds: the setting ``key`` breaks ``rule``."""
    if not condition:
        raise UserError(f"config: {key}={value} is out of range: {rule}")


def require_at_least(least: int, config: Any, section: str, *names: str) -> None:
    """Raises a UserError unless each of the fields ``names`` of a config section is ``least`` or more."""
    for name in names:
        value = getattr(config, name)
        require(value >= least, f"{section}.{name}", value, f"at least {least}" if least else "0 or more")
