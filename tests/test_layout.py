"""Each folder imports only folders above it, and no module or folder grows too large."""

import ast
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "BC_training"
# Folders in one row do not import each other; ``root`` are the modules of the package itself.
ORDER = [
    {"common"},
    {"runtime"},
    {"models"},
    {"data"},
    {"games"},
    {"training"},
    {"play"},
    {"finetuning"},
    {"evaluation"},
    {"convert", "validate"},
    {"reports", "videos"},
    {"root"},
    {"experiments"},
    {"scripts"},
    {"command line"},
]
COMMAND_LINE = {"__main__", "command_line", "experiment_commands", "visualize_commands"}
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if not {"checkpoints", "logs"} & set(path.parts))


def name_of(path: Path) -> str:
    """``data.loader`` of BC_training/data/loader.py, ``games`` of BC_training/games/__init__.py."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


NAMES = {name_of(path): path for path in MODULES}


@cache
def imports_of(name: str) -> set[str]:
    """The package's modules that a module imports, also within functions and for type checkers."""
    found = set()
    for node in ast.walk(ast.parse(NAMES[name].read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} has a relative import"
            within = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {i if i.removeprefix("BC_training.") in NAMES else str(node.module) for i in within}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return {i.removeprefix("BC_training.") for i in found if i.startswith("BC_training.")} - {name}


def row_of(name: str) -> int:
    folder = name.partition(".")[0] if "." in name or (PACKAGE / name).is_dir() else "root"
    folder = "command line" if name in COMMAND_LINE else folder
    return next(i for i, row in enumerate(ORDER) if folder in row)


@pytest.mark.parametrize("name", sorted(set(NAMES) - {""}))
def test_a_module_imports_only_folders_above_its_own(name):
    later = {i for i in imports_of(name) if row_of(i) > row_of(name)}
    folder = name.partition(".")[0]
    beside = {i for i in imports_of(name) if row_of(i) == row_of(name) and i.partition(".")[0] != folder}
    is_root = row_of(name) >= row_of("train")  # modules of the package itself are one folder
    assert not later, f"{name} imports {later}"
    assert is_root or not beside, f"{name} imports {beside}"


def test_variants_never_import_each_other():
    variants = {name for name in NAMES if name.startswith("models.") and name.endswith(".model")}
    assert len(variants) > 1
    assert not {(name, i) for name in variants for i in imports_of(name) & variants}


def test_no_modules_import_each_other_in_a_circle():
    TopologicalSorter({name: imports_of(name) & set(NAMES) for name in NAMES if name}).prepare()


def test_no_module_is_over_300_lines():
    assert not [name for name, path in NAMES.items() if len(path.read_text(encoding="utf-8").splitlines()) > 300]


def test_no_folder_has_over_16_modules():
    folders = {path.parent for path in MODULES}
    assert not [folder.name for folder in folders if len(list(folder.glob("*.py"))) > 16]


def test_texts_are_read_and_written_in_an_encoding_that_is_named():
    """Windows would take its own; the linter knows the type of few paths."""
    for name, path in NAMES.items():
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                is_text = node.func.attr in ("read_text", "write_text")
                assert not is_text or any(k.arg == "encoding" for k in node.keywords), f"{name}:{node.lineno}"


def test_these_tests_find_modules_and_imports():
    assert {"train", "common.dataset", "games", "models.pure_cnn.model"} <= set(NAMES)
    assert "training.setup" in imports_of("train")
    assert row_of("common.storage.store") == 0
    assert row_of("train") > row_of("reports.run.report") > row_of("play.rollout") > row_of("training.setup")
