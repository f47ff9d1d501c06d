"""How a person plays."""

from dataclasses import dataclass
from pathlib import Path

UNFINISHED = ("ask", "keep", "drop")


@dataclass(frozen=True)
class PersonOptions:
    """How a person plays.

    Attributes:
        keybinds: the file that says what the keys do; None for the defaults.
        takeover: the key that takes over from a policy.
        unfinished: what becomes of an episode that the person quits, one of ``UNFINISHED``.
    """

    keybinds: Path | None = None
    takeover: str = "TAB"
    unfinished: str = "ask"
