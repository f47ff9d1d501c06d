"""Converters: other people's recordings become a dataset.

Each kind of recording has a folder with a module ``reader`` and in it a function
``open_source(path, options) -> Source``; see ``source.py``. ``conversion.py`` does what is the same for all kinds.
"""

import importlib
from pathlib import Path

from BC_training.common.errors import unknown
from BC_training.convert.source import Options, Source

KINDS = {
    "sessions": "sessions",
    "lerobot": "lerobot",
    "minari": "hdf5",
    "robomimic": "hdf5",
    "doom-demo": "doom_demo",
    "events": "window_events",
    "owamcap": "owamcap",
}  # to the folder of its reader


def open_source(path: Path, options: Options) -> Source:
    """Finds the recordings at ``path``. Raises a UserError if the kind is unknown or the source cannot be read."""
    if options.kind not in KINDS:
        raise unknown("kind of recording", options.kind, KINDS)
    reader = importlib.import_module(f"BC_training.convert.{KINDS[options.kind]}.reader")
    return reader.open_source(path, options)
