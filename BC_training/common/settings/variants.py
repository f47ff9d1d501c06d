"""Finds the variants of the policy by the names of their folders; ``models`` describes what each holds."""

import importlib
from pathlib import Path
from types import ModuleType

from BC_training.common.errors import UserError, unknown

_MODELS = Path(__file__).resolve().parents[2] / "models"


def names() -> list[str]:
    """The names of all variants."""
    return sorted(p.parent.name for p in _MODELS.glob("*/model.py"))


def find(name: str) -> ModuleType:
    """The ``model`` module of the variant ``name``; a UserError where there is none, or it lacks a part."""
    if name not in names():
        raise unknown("model", name, names(), "set model.name, or add BC_training/models/<name>/model.py")
    module = importlib.import_module(f"BC_training.models.{name}.model")
    for part in ("Config", "create_model"):
        if not hasattr(module, part):
            raise UserError(
                f"BC_training/models/{name}/model.py has no {part}; see BC_training/models/pure_cnn/model.py"
            )
    return module
