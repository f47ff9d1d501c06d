"""The commands that make something to look at; ``__main__`` adds them to its own."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

app = typer.Typer(name="visualize", no_args_is_help=True, help="Pictures, videos and pages of a run.")
console = Console()


@app.callback()
def visualize() -> None:
    """Pictures, videos and pages of a run."""


@app.command(
    epilog="Examples:\n\n"
    "uv run -m BC_training visualize report BC_training/checkpoints/quickstart\n\n"
    "uv run -m BC_training visualize report BC_training/checkpoints/quickstart/last --split train --out train.html"
)
def report(
    checkpoint: Annotated[Path, typer.Argument(help="A run's folder (its best is used) or one of its steps.")],
    out: Annotated[
        Path | None, typer.Option(help="The HTML page; by default report.html in the run's folder of logs.")
    ] = None,
    data: Annotated[str | None, typer.Option(help="A dataset; by default the one it was trained on.")] = None,
    split: Annotated[
        str | None, typer.Option(help="train, val, test, or all episodes; by default val, and all with --data.")
    ] = None,
) -> None:
    """Write one HTML page about a run: training, scores, play, calibration, mistakes, config."""
    from BC_training.visualize.report import report

    report(checkpoint, console, data=data, split=split, out=out)
