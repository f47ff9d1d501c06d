"""Writes Rerun recordings (.rrd) of what the videos show, for Rerun's viewer."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from BC_training.common.errors import UserError
from BC_training.common.files import require_writable
from BC_training.evaluation.predict import EpisodePredictions
from BC_training.play.video import PREDICTED, RECORDED
from BC_training.videos.film import Film


def require_rerun(path: Path) -> None:
    """Raises a UserError, before the work, if ``path`` is no .rrd or cannot be written, or rerun-sdk is missing."""
    if path.suffix != ".rrd":
        raise UserError(f"cannot write {path}: Rerun recordings are .rrd, call it {path.stem or 'recording'}.rrd")
    require_writable(path)
    try:
        import rerun  # noqa: F401  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise UserError(
            "--rerun needs rerun-sdk, which is not installed: run 'uv sync --extra rerun', or leave out --rerun"
        ) from error


def write_episode(path: Path, predictions: EpisodePredictions, fps: float, frames: Iterable[np.ndarray]) -> None:
    """Writes ``frame`` and ``actions/NAME/recorded``, ``/predicted`` and ``/probability`` on the timelines ``frame``
    and ``time``, from frames uint8 [3, H, W] RGB at ``fps`` frames per second; ``axes/NAME`` without a probability.
    """
    import rerun as rr
    import rerun.blueprint as blueprint

    origins = {name: f"actions/{rr.escape_entity_path_part(name)}" for name in predictions.action_names}
    axes = {name: f"axes/{rr.escape_entity_path_part(name)}" for name in predictions.axis_names}
    named = [*origins.items(), *axes.items()]
    plots = [blueprint.TimeSeriesView(origin=origin, name=name) for name, origin in named]
    picture = blueprint.Spatial2DView(origin="frame", name=predictions.episode)
    stream = _open(path, blueprint.Horizontal(picture, blueprint.Vertical(*plots)))
    for i, origin in enumerate(origins.values()):
        _log_series(stream, f"{origin}/recorded", predictions.true[:, i], fps, RECORDED)
        _log_series(stream, f"{origin}/predicted", predictions.predicted[:, i], fps, PREDICTED)
        _log_series(stream, f"{origin}/probability", predictions.probability[:, i], fps, PREDICTED)
    for i, origin in enumerate(axes.values()):
        _log_series(stream, f"{origin}/recorded", predictions.true_axes[:, i], fps, RECORDED)
        _log_series(stream, f"{origin}/predicted", predictions.predicted_axes[:, i], fps, PREDICTED)
    for t, frame in enumerate(frames):
        file = io.BytesIO()
        Image.fromarray(np.moveaxis(frame, 0, -1)).save(file, "PNG", compress_level=1)
        _log_picture(stream, "frame", t, fps, file.getvalue(), "image/png")
    stream.flush()
    stream.disconnect()


def write_rollouts(path: Path, films: Sequence[Film], labels: Sequence[str]) -> None:
    """Writes each player's ``players/LABEL/frame``, ``/return`` and ``/actions/BUTTON``; labels must differ."""
    import rerun as rr
    import rerun.blueprint as blueprint

    origins = [f"players/{rr.escape_entity_path_part(label)}" for label in labels]
    views = [
        blueprint.Vertical(
            blueprint.Spatial2DView(origin=f"{origin}/frame", name=label),
            blueprint.TimeSeriesView(origin=f"{origin}/return", name="return"),
            blueprint.TimeSeriesView(origin=f"{origin}/actions", name="actions"),
        )
        for origin, label in zip(origins, labels, strict=True)
    ]
    stream = _open(path, blueprint.Horizontal(*views))
    for origin, film in zip(origins, films, strict=True):
        _log_series(stream, f"{origin}/return", np.array(film.returns), film.fps)
        for i, name in enumerate((*film.buttons, *film.axes)):
            values = np.array([np.concatenate(action)[i] for action in film.actions])
            _log_series(stream, f"{origin}/actions/{rr.escape_entity_path_part(name)}", values, film.fps)
        for t, picture in enumerate(film.pictures):
            _log_picture(stream, f"{origin}/frame", t, film.fps, picture, "image/jpeg")
    stream.flush()
    stream.disconnect()


def _open(path: Path, layout: Any) -> Any:
    import rerun as rr
    import rerun.blueprint as blueprint

    stream = rr.RecordingStream("bc_training")
    stream.save(path, default_blueprint=blueprint.Blueprint(layout))
    return stream


def _log_series(
    stream: Any, entity: str, values: np.ndarray, fps: float, colour: tuple[int, int, int] | None = None
) -> None:
    """Logs ``values`` [N], one per frame from the first on."""
    import rerun as rr

    times = np.arange(len(values))
    name = entity.rsplit("/", 1)[-1]
    stream.log(entity, rr.SeriesLines(colors=None if colour is None else [colour], names=[name]), static=True)
    indexes = [rr.TimeColumn("frame", sequence=times), rr.TimeColumn("time", duration=times / fps)]
    stream.send_columns(entity, indexes=indexes, columns=rr.Scalars.columns(scalars=values.astype(np.float64)))


def _log_picture(stream: Any, entity: str, t: int, fps: float, contents: bytes, media_type: str) -> None:
    import rerun as rr

    stream.set_time("frame", sequence=t)
    stream.set_time("time", duration=t / fps)
    stream.log(entity, rr.EncodedImage(contents=contents, media_type=media_type))
