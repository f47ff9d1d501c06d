"""Paths as users write them."""

import os
from pathlib import Path
from typing import Any

from BC_training.common.errors import UserError


def expand(path: str | Path) -> str:
    """``path`` with a leading ~ replaced by the home folder, which shells do not do after a "=" or in a file.

    Raises:
        UserError: there is no such home folder, or no system could have such a path.
    """
    text = os.fspath(path)
    found = os.path.expanduser(text)  # noqa: PTH111 (pathlib raises without saying of what)
    if text.startswith("~") and found == text:
        raise UserError(f"there is no home folder {text}: a folder of that name is ./{text}")
    try:
        found.encode()
    except UnicodeEncodeError as error:
        raise UserError(f"the path {found!r} is not UTF-8: rename it") from error
    if "\0" in found:
        raise UserError(f"the path {found!r} holds a null character: no file is called so")
    return found


def as_path(text: str | Path) -> Path:
    """``expand``, as a path."""
    return Path(expand(text))


def expand_fields(config: Any, section: str, *names: str) -> None:
    """Expands the paths in fields of a frozen config.

    Raises:
        UserError: see ``expand``.
    """
    for name in names:
        if isinstance(value := getattr(config, name), str):
            try:
                object.__setattr__(config, name, expand(value))
            except UserError as error:
                raise UserError(f"config: {section}.{name}: {error}") from error
