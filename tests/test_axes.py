"""Policies with axes, with buttons beside them and without, are trained, scored, shown and filmed."""

import csv
import json
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import trainings
from axis_datasets import write_axis_dataset
from dataset_files import user_error
from pages import CHROMIUM, Page, browse, require_self_contained
from rich.console import Console
from videos import decode, is_colour

from BC_training.evaluation.evaluate import evaluate
from BC_training.evaluation.predict import open_episode, predict, predict_episode
from BC_training.play.video import DISAGREE
from BC_training.reports.compare.compare import compare
from BC_training.reports.run.report import report
from BC_training.training import checkpoint
from BC_training.videos.episode import film_episode
from BC_training.videos.saliency import film_saliency

AXES = {"steer": 1.0, "mouse_x": 40.0}
SMALL = ["model.conv_features=[8,16]", "model.dense_features=[32]"]
SMALL += ["dataset.frame_size=[12,16]"]
FAST = ["training.num_epochs=5", "training.learning_rate=0.005", "training.steps_per_dispatch=15"]
QUIET = Console(file=StringIO())


class Trained(NamedTuple):
    """A run, its dataset's buttons, and the number of its one validation episode."""

    path: Path
    logs: Path
    data: Path
    buttons: tuple[str, ...]
    episode: int

    @property
    def page(self) -> Page:
        return Page((self.logs / "report.html").read_text())


@pytest.fixture(scope="module", params=[("fire", "jump"), ()], ids=["buttons and axes", "axes alone"])
def trained(request, tmp_path_factory) -> Trained:
    folder = tmp_path_factory.mktemp("axes")
    write_axis_dataset(folder / "x.zarr", [40] * 12, buttons=request.param, axes=AXES, size=(12, 16))
    split = "dataset.split={train: 0.92, val: 0.08, test: 0.0}"
    trainings.run(folder, folder / "x.zarr", *SMALL, *FAST, split)
    (name,) = checkpoint.read(folder / "c/pure_cnn").split["val"]
    number = int(name.removeprefix("episode_"))
    return Trained(folder / "c/pure_cnn", folder / "l/pure_cnn", folder / "x.zarr", request.param, number)


def test_where_there_are_axes_the_loss_chooses_the_best_checkpoint(trained):
    saved = checkpoint.read(trained.path)
    rows = [json.loads(line) for line in (trained.logs / "metrics.jsonl").read_text().splitlines()]
    losses = {row["step"]: row["loss"] for row in rows if row["kind"] == "val"}
    assert saved.config.evaluation.best_metric == "loss"
    assert saved.step == min(losses, key=losses.__getitem__)


def test_every_epoch_logs_the_scores_of_each_axis(trained):
    rows = [json.loads(line) for line in (trained.logs / "metrics.jsonl").read_text().splitlines()]
    scored = [row for row in rows if row["kind"] == "val"]
    assert len(scored) == 5
    for row in scored:
        for place in ("", "baselines/majority/", "baselines/repeat_previous/"):
            for name in AXES:
                assert row[f"{place}per_axis/{name}/mean_absolute_error"] > 0
                assert 0 < row[f"{place}per_axis/{name}/within_one_bin"] <= 1


def test_the_page_shows_axes_and_of_buttons_only_what_there_is(trained):
    page = trained.page
    require_self_contained((trained.logs / "report.html").read_text())
    labels = [svg["aria-label"] or "" for svg in page.of("svg")]
    for name in AXES:
        assert sum(label.startswith(f"Predicted against recorded amounts of {name}:") for label in labels) == 1
        assert sum(label.startswith(f"{name}, by seconds: this policy") for label in labels) == 1
        assert f"{name} < 0" in page.text
    assert any(label.startswith("At most one bin off, validation: steer ") for label in labels)
    for words in ("Weakest axis", "kept at 0", "where actions change", "the same, by another amount", " → "):
        assert words in page.text
    for words in ("Calibration", "Precision and recall", "Macro F1", "macro F1", "Presses and releases"):
        assert (words in page.text) == bool(trained.buttons)
    figures = page.text.count(" · frame ")
    assert figures > 1
    assert page.text.count(" → ") == figures * len(AXES) + 1  # and in the sentence that explains it


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
def test_the_page_of_axes_in_a_browser(trained, tmp_path):
    browse(report(trained.path, QUIET, out=tmp_path / "x.html"), tmp_path)


def test_scores_ablations_and_the_diagnosis_count_axes(trained):
    screen = StringIO()
    found = evaluate(trained.path, Console(file=screen, width=80), diagnose=True)
    assert found.ablations is not None
    assert found.ablations["blank_frames"].exact_match < found.exact_match
    assert "changes_over_shuffled_frames" in found.diagnosis.gains
    assert max(map(len, screen.getvalue().splitlines())) <= 80
    assert screen.getvalue().count("repeat previous") == (4 if trained.buttons else 3)


def test_thresholds_are_tuned_where_there_are_buttons(trained, tmp_path):
    if trained.buttons:
        assert evaluate(trained.path, QUIET, tune=True).before is not None
        return
    message = user_error(evaluate, trained.path, QUIET, tune=True, json_file=tmp_path / "x.json")
    assert "has axes alone, and --tune chooses thresholds of buttons: leave it out" in message
    assert not list(tmp_path.iterdir())


def test_an_episode_is_predicted_as_the_split_is(trained, tmp_path):
    files = {"out": tmp_path / "x.csv", "json_file": tmp_path / "x.json"}
    screen = StringIO()
    result = predict(trained.path, console=Console(file=screen, width=200), episode=trained.episode, **files)
    whole = evaluate(trained.path, QUIET)  # the split is this episode
    assert json.loads(files["json_file"].read_text()) == result
    for name in AXES:
        assert result["per_axis"][name] == pytest.approx(vars(whole.per_axis[name]))
        error = f"{result['per_axis'][name]['mean_absolute_error']:.4g}"
        assert f"{name}: mean absolute error {error}, at most one bin off in " in screen.getvalue()
    assert result["exact_match"] == pytest.approx(whole.exact_match)
    with files["out"].open(newline="") as file:
        rows = list(csv.DictReader(file))
    parts = {f"{name}_{kind}" for name in AXES for kind in ("true", "predicted")}
    parts |= {f"{name}_{kind}" for name in trained.buttons for kind in ("true", "predicted", "probability")}
    assert set(rows[0]) == parts | {"frame"}


def test_the_film_marks_the_frames_in_which_an_axis_is_off(trained, tmp_path):
    chunk = pytest.importorskip("rerun.chunk")
    shown = film_episode(trained.path, tmp_path / "e.mp4", QUIET, episode=trained.episode, rerun=tmp_path / "e.rrd")
    pictures, rate = decode(tmp_path / "e.mp4")
    wrong = shown.disagree.any(axis=1) | shown.axes_disagree.any(axis=1)
    assert (rate, len(pictures)) == (10, 40)
    assert 0 < shown.axes_disagree.any(axis=1).sum() < 40
    border = is_colour(pictures[:, 100:400, 1:4], DISAGREE).mean(axis=(1, 2))
    np.testing.assert_array_equal(border > 0.5, wrong)
    series: dict[str, list[Any]] = {}
    for part in chunk.RrdReader(tmp_path / "e.rrd").stream():
        table = part.to_record_batch()
        for name in table.schema.names:
            if "frame" in table.schema.names and name.split(":")[-1] == "scalars":
                pairs = zip(table["frame"].to_pylist(), table[name].to_pylist(), strict=True)
                series.setdefault(part.entity_path, []).extend(pairs)
    for i, name in enumerate(AXES):
        for kind, values in (("recorded", shown.true_axes), ("predicted", shown.predicted_axes)):
            found = [value for _, (value,) in sorted(series[f"/axes/{name}/{kind}"])]
            np.testing.assert_array_equal(found, values[:, i].astype(float))


@pytest.mark.parametrize("action", [None, "steer"])
def test_saliency_of_an_axis_has_every_frame(trained, tmp_path, action):
    film_saliency(trained.path, tmp_path / "s.mp4", QUIET, episode=trained.episode, action=action)
    pictures, _ = decode(tmp_path / "s.mp4")
    assert len(pictures) == 40
    assert (np.ptp(pictures[:, 40:300].astype(int), axis=-1) > 60).any(axis=(1, 2)).all()


def test_runs_are_compared_by_each_axis(trained, tmp_path):
    screen = StringIO()
    result = compare([trained.path], Console(file=screen, width=80), json_file=tmp_path / "x.json")
    assert list(result.runs[0].per_axis) == [*AXES]
    assert all(f"Axis {name}" in screen.getvalue() for name in AXES)
    assert ("macro F1" in screen.getvalue()) == bool(trained.buttons)


def test_an_episode_without_recorded_targets_has_no_scores(trained):
    policy, dataset, position = open_episode(trained.path, None, trained.episode)
    shown = predict_episode(policy, dataset, position, QUIET)
    nothing = replace(shown, true=shown.true[:0], true_axes=shown.true_axes[:0])  # as a large action_shift leaves it
    assert (nothing.per_axis, nothing.exact_match, bool(nothing.axes_disagree.any())) == ({}, None, False)


@pytest.mark.parametrize(
    "choice",
    [
        "evaluation.best_metric=macro_f1",
        "training.early_stopping={metric: macro_f1, patience: 1}",
    ],
)
def test_axes_alone_are_not_chosen_by_a_score_of_buttons(tmp_path, choice):
    write_axis_dataset(tmp_path / "x.zarr", [20] * 4, buttons=(), axes=AXES)
    before = sorted(tmp_path.rglob("*"))
    message = user_error(trainings.run, tmp_path, tmp_path / "x.zarr", *SMALL, choice)
    key = choice.partition("=")[0].replace("stopping", "stopping.metric")
    assert message.startswith(f"{key}=macro_f1 is a score of buttons, and {tmp_path / 'x.zarr'} has axes alone:")
    assert sorted(tmp_path.rglob("*")) == before
