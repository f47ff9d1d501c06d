"""``dataset.path``: one dataset, or several that are trained on as one."""

import os
from collections.abc import Iterable
from pathlib import PurePath
from urllib.parse import urlsplit

from BC_training.common.errors import UserError


def one_or_several(path: str | Iterable[str]) -> str | tuple[str, ...]:
    """The path of one dataset as text, those of several as a tuple.

    Raises a UserError where there is none, or where two are the same dataset or have the same name.
    """
    if isinstance(path, str):
        return path
    paths = tuple(path)
    if not paths or not all(isinstance(one, str) for one in paths):
        raise UserError("config: dataset.path: write one path, or several as [a.zarr, b.zarr]")
    places = [os.path.normpath(one) for one in paths]
    names = [name_of(one) for one in paths]
    for i, one in enumerate(paths):
        if places.index(places[i]) < i:
            raise UserError(f"config: dataset.path: {one} is there twice: name each dataset once")
        if names.index(names[i]) < i:
            other = paths[names.index(names[i])]
            raise UserError(
                f"config: dataset.path: {other} and {one} have the same name, by which episodes are told apart: "
                "rename one"
            )
    return paths[0] if len(paths) == 1 else paths


def name_of(path: str) -> str:
    """What a dataset is called among several: its folder's name, without the password or signature of an address."""
    return PurePath(urlsplit(path).path if "://" in path else path).name
