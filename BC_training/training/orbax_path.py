"""Folders as Orbax takes them: by their names, whatever characters these hold."""

import fnmatch
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from etils import epath

from BC_training.common.errors import UserError

_EtilsPath: Any = type(epath.Path())  # that of this system


class _Literal(_EtilsPath):
    """A local folder. etils takes names in a path for patterns, "v[2]" for "v2", and /s3/ and /gs/ for addresses."""

    _uri_scheme = None

    def glob(self, pattern: str) -> Iterator[Any]:
        return (entry for entry in self.iterdir() if fnmatch.fnmatchcase(entry.name, pattern))


def orbax_path(folder: Path) -> Any:
    """``folder``, absolute, for Orbax to write to or read from."""
    return _Literal(folder.resolve())


def require_orbax_path(folder: Path) -> None:
    """Raises a UserError for a folder that TensorStore, below Orbax, would take for another."""
    if os.sep != "\\" and "\\" in str(folder.resolve()):
        raise UserError(
            f"checkpoints cannot be kept in {folder.resolve()}: TensorStore takes the \\ in its name for a /; "
            "rename the folder, or choose another training.checkpoint_dir"
        )
