"""Lines for the user, printed as they are: neither wrapped nor taken for markup."""

from typing import Any

from rich.console import Console


def say(console: Console, text: str, **style: Any) -> None:
    console.print(text, soft_wrap=True, markup=False, **style)
