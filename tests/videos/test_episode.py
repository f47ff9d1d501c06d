"""The video of a recorded episode shows what was recorded and predicted, and where they disagree."""

import dataclasses
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from untrained import save_run
from videos import decode, is_colour

from BC_training.common.errors import UserError
from BC_training.common.schema import DatasetConfig
from BC_training.evaluation.predict import EpisodePredictions
from BC_training.play.video import DISAGREE, PREDICTED, RECORDED
from BC_training.videos import episode as module
from BC_training.videos.episode import EpisodePainter, film_episode

QUIET = Console(file=StringIO())
FRAME = (24 * 20, 32 * 20)  # 24x32, enlarged to 640 pixels
ROW, FOOT, LEFT = module._ROW, module._FOOT, module._LEFT


@pytest.fixture(scope="module")
def run(tmp_path_factory, make_dataset, make_config, make_inputs) -> Path:
    folder = tmp_path_factory.mktemp("episode")
    make_dataset(folder / "x.zarr", [30], actions=3, fps=10.0)
    config = dataclasses.replace(make_config(), dataset=DatasetConfig(path=str(folder / "x.zarr")))
    return save_run(folder / "run", config, make_inputs())


def test_the_video_marks_the_frames_that_disagree(run, tmp_path):
    shown = film_episode(run, tmp_path / "e.mp4", QUIET)
    pictures, rate = decode(tmp_path / "e.mp4")
    assert rate == 10
    assert pictures.shape == (30, FRAME[0] + 3 * ROW + FOOT, FRAME[1], 3)
    wrong = shown.disagree.any(axis=1)
    assert 0 < wrong.sum() < 30
    border = is_colour(pictures[:, 100 : FRAME[0] - 100, 1:4], DISAGREE).mean(axis=(1, 2))
    np.testing.assert_array_equal(border > 0.9, wrong)
    np.testing.assert_array_equal(border < 0.1, ~wrong)
    found = pictures[:, 40 : FRAME[0] - 20, 20:-20].mean(axis=(1, 2))
    frames = np.stack(list(module.frames_of(*module.open_episode(run, None, 0)[1:])))
    assert np.abs(found - frames.mean(axis=(2, 3))).max() < 12  # each frame has its own colour


BLACK = np.zeros((3, 30, 640), np.uint8)


def painter_of(true: list[list[bool]], predicted: list[list[bool]]) -> EpisodePainter:
    """Paints an episode of 10 frames per second in which every probability is 0.5."""
    values, names = np.full(np.shape(predicted), 0.5, np.float32), tuple("ab"[: len(predicted[0])])
    shown = EpisodePredictions(
        "e",
        names,
        np.array(true),
        np.ones(len(values), bool),
        np.array(predicted),
        values,
        values[0],
        np.zeros(len(values)),
        10.0,
        (),
        values[:, :0],
        values[:, :0],
        None,
    )
    return EpisodePainter(shown, 10.0)


def test_boxes_and_strips_show_each_button():
    true = [[t < 20, False] for t in range(40)]
    predicted = [[t < 30, t == 5] for t in range(40)]
    painter = painter_of(true, predicted)
    pictures = {t: painter.paint(BLACK, t) for t in (5, 25, 39)}
    for t, picture in pictures.items():
        for i in range(2):
            for column, (values, colour) in enumerate(((true, RECORDED), (predicted, PREDICTED))):
                box = picture[30 + i * ROW + ROW // 2, module._NAME + column * (module._BOX + 6) + module._BOX // 2]
                assert is_colour(box, colour, 5) == values[t][i]
    step = (640 - LEFT) / 80  # 8 seconds of 10 frames, all on the first page
    at = [round(LEFT + (t + 0.5) * step) for t in range(40)]
    for i, marked in enumerate(([20 <= t < 30 for t in range(40)], [t == 5 for t in range(40)])):
        foot = pictures[39][30 + (i + 1) * ROW - 5, at]
        np.testing.assert_array_equal(is_colour(foot, DISAGREE, 5)[:39], marked[:39])
    band = pictures[39][30 + 6, at].astype(int)  # near the top of the first strip
    np.testing.assert_array_equal(band[:39, 0] > 100, [t < 20 for t in range(39)])
    for t, picture in pictures.items():
        line = (picture[30 + ROW, LEFT:] == 255).all(axis=-1).nonzero()[0]
        assert line.mean() == pytest.approx((t + 0.5) * step, abs=1)


def test_strips_turn_to_the_next_seconds():
    painter, foot = painter_of([[t == 85] for t in range(100)], [[False]] * 100), 30 + ROW - 5
    assert not is_colour(painter.paint(BLACK, 79)[foot, LEFT:], DISAGREE, 5).any()
    places = is_colour(painter.paint(BLACK, 80)[foot, LEFT:], DISAGREE, 5).nonzero()[0]
    assert places.mean() == pytest.approx(5.5 * (640 - LEFT) / 80, abs=1)


def test_the_last_frames_have_no_recorded_target():
    painter = painter_of([[True]] * 3, [[False]] * 5)  # the policy looks two frames ahead
    disagree = [is_colour(painter.paint(BLACK, t)[10, 2], DISAGREE) for t in range(5)]
    assert disagree == [True] * 3 + [False] * 2


def test_a_rerun_recording_holds_the_same(run, tmp_path):
    chunk = pytest.importorskip("rerun.chunk")
    shown = film_episode(run, tmp_path / "e.mp4", QUIET, rerun=tmp_path / "e.rrd")
    found: dict[str, list] = {}
    for part in chunk.RrdReader(tmp_path / "e.rrd").stream():
        table = part.to_record_batch()
        for name in table.schema.names:
            if "frame" in table.schema.names and name.split(":")[-1] in ("scalars", "blob"):
                pairs = zip(table["frame"].to_pylist(), table[name].to_pylist(), strict=True)
                found.setdefault(part.entity_path, []).extend(pairs)
    assert sorted(t for t, _ in found["/frame"]) == list(range(30))
    for i in range(3):
        series = {"recorded": shown.true, "predicted": shown.predicted, "probability": shown.probability}
        for kind, values in series.items():
            pairs = sorted(found[f"/actions/a{i}/{kind}"])
            np.testing.assert_array_equal([value for _, (value,) in pairs], values[:, i].astype(float))


@pytest.mark.parametrize(
    ("out", "rerun", "message"),
    [
        ("no/e.mp4", "e.rrd", "cannot write no/e.mp4"),
        ("e.avi", "e.rrd", "videos are MP4, call it e.mp4"),
        ("e.mp4", "no/e.rrd", "cannot write no/e.rrd"),
        ("e.mp4", "e.rr", "call it e.rrd"),
    ],
)
def test_unwritable_files_are_found_before_a_missing_checkpoint(tmp_path, monkeypatch, out, rerun, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=message):
        film_episode("nowhere", Path(out), QUIET, rerun=Path(rerun))
    assert not list(tmp_path.iterdir())


def test_rerun_is_asked_for_where_it_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rerun", None)
    with pytest.raises(UserError, match="uv sync --extra rerun"):
        film_episode("nowhere", tmp_path / "e.mp4", QUIET, rerun=tmp_path / "e.rrd")
