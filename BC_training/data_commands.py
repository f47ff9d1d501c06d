"""The commands that work on datasets and recordings; ``__main__`` adds them to its own."""

import math
import re
from pathlib import Path
from typing import Annotated

import typer

from BC_training.command_line import make_console
from BC_training.common.errors import UserError, unknown

app = typer.Typer()
console = make_console()

Workers = Annotated[int | None, typer.Option(min=1, help="Processes; by default one a core.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the result to this file.")]


@app.command(
    epilog="Examples:\n\n"
    "uv run -m BC_training convert recordings/ --from sessions --keybinds keybinds.json --out data/mine.zarr\n\n"
    "uv run -m BC_training convert freedoom2.wad --from doom-demo --size 72x128 --fps 17.5 --out data/demos.zarr\n\n"
    "uv run -m BC_training convert data/mine.zarr --to lerobot --out data/mine-lerobot"
)
def convert(
    source: Annotated[Path, typer.Argument(help="A folder or file of recordings; with --to a dataset.")],
    out: Annotated[
        Path, typer.Option(help="The dataset; created, continued or appended to. With --to a folder that is not there.")
    ],
    kind: Annotated[
        str | None, typer.Option("--from", help="sessions, lerobot, minari, robomimic or doom-demo.")
    ] = None,
    to: Annotated[str | None, typer.Option(help="lerobot.")] = None,
    size: Annotated[str | None, typer.Option(help="HxW of the frames, such as 72x128; by default as they are.")] = None,
    fps: Annotated[float | None, typer.Option(help="Frames per second; by default as they are.")] = None,
    keybinds: Annotated[Path | None, typer.Option(help="sessions: the JSON that maps keys to actions.")] = None,
    iwad: Annotated[Path | None, typer.Option(help="doom-demo: the game's WAD.")] = None,
    camera: Annotated[str | None, typer.Option(help="Which one to use, where there are several.")] = None,
    pwad: Annotated[list[Path] | None, typer.Option(help="doom-demo: a WAD that adds to it; repeatable.")] = None,
    leave_out: Annotated[list[str] | None, typer.Option(help="A state value not to convert; repeatable.")] = None,
    time_unit: Annotated[str, typer.Option(help="sessions: unit of the times, us, ms, s or ns.")] = "us",
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="sessions: even if much of a recording is missing.")
    ] = False,
    workers: Workers = None,
) -> None:
    """Convert recordings of another kind into a dataset, or a dataset into another kind."""
    from BC_training.convert import Options, convert

    if fps is not None and not 0 < fps < math.inf:
        raise UserError(f"--fps {fps:g} is not a number of frames per second above 0: write --fps 17.5")
    if kind is not None and to is None:
        pwads = tuple(pwad or ())
        options = Options(
            kind, _size(size), fps, keybinds, iwad, camera, pwads, tuple(leave_out or ()), time_unit, allow_missing
        )
        convert(source, out, options, workers, console)
        return
    if kind is not None or to is None:
        raise UserError(
            "convert needs either --from KIND, to make a dataset, or --to lerobot, to write one out; see -h"
        )
    if to != "lerobot":
        raise unknown("kind to write", to, ["lerobot"])
    given = {"keybinds": keybinds, "iwad": iwad, "pwad": pwad, "camera": camera, "leave-out": leave_out}
    for name, value in {**given, "allow-missing": allow_missing, "time-unit": time_unit != "us"}.items():
        if value:
            raise UserError(f"--{name} belongs to --from, it means nothing with --to: leave it out")
    from BC_training.convert.lerobot.export import export

    export(source, out, _size(size), fps, workers, console)


@app.command(
    epilog="Examples:\n\n"
    "uv run -m BC_training analyze data/quickstart.zarr\n\n"
    "uv run -m BC_training analyze data/mine.zarr --actions attack,jump --out mine.html --json mine.json"
)
def analyze(
    data: Annotated[str, typer.Argument(help="The dataset.")],
    out: Annotated[Path | None, typer.Option(help="The HTML page; by default NAME.html beside the dataset.")] = None,
    actions: Annotated[str | None, typer.Option(help="Only these, such as attack,jump; by default all.")] = None,
    json: JsonFile = None,
) -> None:
    """Show what is in a dataset: tables here, and a page to open in a browser."""
    from BC_training.reports.dataset.analyze import analyze

    chosen = None if actions is None else [name.strip() for name in actions.split(",")]
    analyze(data, console, out=out, actions=chosen, json_file=json)


@app.command(epilog="Examples:\n\nuv run -m BC_training cache\n\nuv run -m BC_training cache --clear")
def cache(
    clear: Annotated[bool, typer.Option("--clear", help="Remove them all, those being built excepted.")] = False,
    folder: Annotated[Path | None, typer.Option(help="Where they are; by default ~/.cache/bc_training.")] = None,
) -> None:
    """List or clear the disk caches of decoded frames (dataset.cache=disk)."""
    from BC_training.data.cache import clear_caches, default_folder, list_caches

    (clear_caches if clear else list_caches)(folder or default_folder(), console)


@app.command(
    epilog="Examples:\n\n"
    "uv run -m BC_training validate data/mine.zarr\n\n"
    "uv run -m BC_training validate data/mine.zarr --repair data/good.zarr --json findings.json\n\n"
    "Exit code: 0 clean (or nothing worse than info), 1 errors or warnings, 2 cannot be read."
)
def validate(
    data: Annotated[str, typer.Argument(help="The dataset's folder, or its s3://, gs:// or http(s):// address.")],
    repair: Annotated[
        str | None, typer.Option(help="Write a new dataset here of the good episodes and the good starts of others.")
    ] = None,
    json: JsonFile = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; by default one for two cores.")] = None,
) -> None:
    """Read a dataset from end to end and list what is wrong with it, by episode and frame."""
    from BC_training.validate.validate import validate

    findings = validate(data, console, workers=workers, json_file=json, repair_to=repair)
    if any(finding.severity != "info" for finding in findings):
        raise typer.Exit(1)


def _size(text: str | None) -> tuple[int, int] | None:
    """(H, W) of "HxW"."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None or min(int(match[1]), int(match[2])) < 8:
        raise UserError(f"--size {text} is not HEIGHTxWIDTH in pixels, at least 8x8; write --size 72x128")
    return int(match[1]), int(match[2])
