"""Conversions in this process."""

from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from BC_training.convert import open_source
from BC_training.convert.conversion import convert
from BC_training.convert.source import Options


def converted(source: Path, out: Path, kind: str, output: StringIO | None = None, **options: Any) -> str:
    """Converts with the fields of ``Options``; the printed text, which also goes to ``output``."""
    output = output or StringIO()
    convert(source, out, Options(kind, **options), 1, Console(file=output, width=1000))
    return output.getvalue()


def opened(source: Path, kind: str, **options: Any) -> Any:
    """The source that a conversion with these fields of ``Options`` would read."""
    return open_source(source, Options(kind, **options))
