"""The ids of games ``gym/ID``: those that Gymnasium has registered, and those that a module registers."""

import sys
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import gymnasium

from BC_training.common.errors import UserError, first_line, unknown

INSTALL = "uv sync --extra gym"
# The packages of the extra that register ids when they are imported, and the prefixes of those.
_PACKAGES = {"ale_py": ("ALE/",), "minigrid": ("MiniGrid-", "BabyAI-")}


def find(name: str) -> str:
    """``name`` as it is always written; it is registered afterwards.

    Args:
        name: ``ID`` or ``module:ID``. Other packages than Gymnasium are imported only where the id may be theirs.

    Raises:
        UserError: no such id, with the nearest match; or a package that is not installed, with what installs it.
    """
    module, _, own = name.rpartition(":")
    if module and module not in _PACKAGES:
        try:
            import_module(module)
        except Exception as error:
            raise UserError(f"game gym/{name}: {module} cannot be imported ({first_line(error)})") from None
    elif own not in gymnasium.registry:
        ours = [package for package, prefixes in _PACKAGES.items() if own.startswith(prefixes)] or list(_PACKAGES)
        missing = [package for package in ours if find_spec(package) is None]
        if missing == ours:
            raise UserError(f"game gym/{own}: {' and '.join(missing)} is not installed: {INSTALL}")
        for package in ours:
            if package not in missing:
                _import(package)
    if own in gymnasium.registry:
        return name if module and module not in _PACKAGES else own
    raise unknown("game", f"gym/{name}", (f"gym/{known}" for known in registered()))


def registered() -> list[str]:
    """All ids that can be found without naming a module."""
    for package in filter(find_spec, _PACKAGES):
        _import(package)
    return list(gymnasium.registry)


def defaults(name: str) -> dict[str, Any]:
    """The options with which an id is registered."""
    return gymnasium.spec(name.rpartition(":")[2]).kwargs


def engine(name: str) -> str:
    """The distribution that plays an id; see ``register`` in ``games/spec.py``."""
    entry: str | Callable | None = gymnasium.spec(name.rpartition(":")[2]).entry_point
    module = (entry if isinstance(entry, str) else entry.__module__ if entry else "").partition(".")[0]
    return {"ale_py": "ale-py", "minigrid": "minigrid"}.get(module, "gymnasium")


def _import(package: str) -> None:
    is_first = package not in sys.modules
    module = import_module(package)
    if is_first and package == "ale_py":
        module.ALEInterface.setLoggerMode(module.LoggerMode.Error)  # without a banner for each game
