"""Thresholds of the best F1 are found, written into a checkpoint and played by."""

import json
import shutil
import sys
from dataclasses import replace
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from sklearn.metrics import f1_score, precision_recall_curve
from untrained import save_run

from BC_training import __main__ as command_line
from BC_training.common.decode import Decoding
from BC_training.common.errors import UserError
from BC_training.common.schema import DatasetConfig
from BC_training.evaluation.evaluate import evaluate
from BC_training.evaluation.results import Evaluation
from BC_training.evaluation.tune import best_threshold
from BC_training.inference import Policy
from BC_training.training import checkpoint
from BC_training.training.decoding_file import write_decoding

QUIET = Console(file=StringIO())


def shown(*arguments, **options) -> tuple[Evaluation, str]:
    """The scores that ``evaluate`` returns, and what it prints."""
    screen = StringIO()
    return evaluate(*arguments, Console(file=screen, width=250), **options), screen.getvalue()


def f1_at(threshold: float, true: np.ndarray, p: np.ndarray) -> float:
    return float(f1_score(true, p.astype(np.float64) >= threshold, zero_division=0.0))


PROBABILITIES = st.sampled_from([0, 0.1, 0.25, 0.5, 0.75, 0.9, 1]) | st.floats(0, 1, width=32, allow_subnormal=False)


@given(
    st.lists(st.tuples(st.booleans(), PROBABILITIES), min_size=1, max_size=40),
    st.sampled_from([0.05, 0.3, 0.5, 0.9]),
)
def test_no_threshold_has_a_better_f1(frames, present):
    true, p = np.array([held for held, _ in frames]), np.array([p for _, p in frames], np.float32)
    found = best_threshold(true, p, present)
    assert 0 < found < 1
    if not true.any():
        assert found == present
        return
    precision, recall, cuts = precision_recall_curve(true, p)
    # Without the last point, of no press, and a threshold of 0, which would press always.
    usable = cuts > 0
    product, total = (precision * recall)[:-1], (precision + recall)[:-1]
    best = max((2 * product[usable] / np.maximum(total[usable], 1e-9)).tolist(), default=0.0)
    assert f1_at(found, true, p) == pytest.approx(best, abs=1e-9)
    if f1_at(present, true, p) == pytest.approx(best, abs=1e-12):
        assert found == present


def test_the_threshold_is_in_the_middle_between_what_is_pressed_and_what_is_not():
    true, p = np.array([0, 0, 1, 1], bool), np.array([0.1, 0.25, 0.375, 0.9], np.float32)
    assert best_threshold(true, p, 0.5) == (0.25 + 0.375) / 2
    assert best_threshold(true, p, 0.3) == 0.3  # as good
    assert best_threshold(np.ones(4, bool), p, 0.5) == pytest.approx(0.05)  # all: between the lowest and 0


def test_the_nearest_of_equally_good_thresholds_is_taken_and_of_two_the_higher():
    # From the top: hit, miss, hit, miss x2, hit. Pressing 1 of 3 hits has F1 2/4, all 6 have 6/9, 3 have 4/6.
    true = np.array([1, 0, 1, 0, 0, 1], bool)
    p = np.array([0.9, 0.8, 0.75, 0.5, 0.25, 0.125], np.float32)
    assert f1_at(0.7, true, p) == f1_at(0.1, true, p) == pytest.approx(2 / 3)
    assert best_threshold(true, p, 0.4) == (0.75 + 0.5) / 2
    assert best_threshold(true, p, 0.2) == 0.125 / 2
    middle = ((0.75 + 0.5) / 2 + 0.125 / 2) / 2
    assert best_threshold(true, p, middle) == (0.75 + 0.5) / 2


def test_thresholds_leave_room_for_hysteresis():
    true, p = np.array([1, 1, 1, 0], bool), np.array([0.1, 0.2, 0.3, 0.0], np.float32)
    assert best_threshold(true, p, 0.5) == pytest.approx(0.05)
    found = best_threshold(true, p, 0.5, above=0.15)
    assert found == pytest.approx((0.15 + 0.2) / 2)
    assert best_threshold(true, p, 0.5, above=0.4) == 0.5


# --- a checkpoint --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def template(tmp_path_factory, make_dataset, make_config, make_inputs) -> Path:
    """A run of 7 buttons, a6 never pressed in validation, whose model has learned nothing."""
    folder = tmp_path_factory.mktemp("tune")
    rng = np.random.default_rng(0)
    rows = [rng.random((n, 7)) < [0.1, 0.2, 0.5, 0.5, 0.8, 0.9, 0.0] for n in (20, 40, 10)]
    make_dataset(folder / "x.zarr", [20, 40, 10], rows=rows)
    config = make_config({"conv_features": (4,), "conv_strides": (2,)})
    config = replace(config, dataset=DatasetConfig(path=str(folder / "x.zarr")))
    split = {"train": ["episode_0"], "val": ["episode_1"], "test": ["episode_2"]}
    return save_run(folder / "run", config, make_inputs(7), split=split)


@pytest.fixture
def run(tmp_path, template) -> Path:
    return Path(shutil.copytree(template, tmp_path / "run"))


def test_a_checkpoint_is_tuned_reloaded_and_played(run):
    step, names = checkpoint.find(run), [f"a{i}" for i in range(7)]
    assert checkpoint.read(run).decoding == Decoding(dict.fromkeys(names, 0.5))
    before = evaluate(run, QUIET)
    report, text = shown(run, tune=True)
    checkpoint.verify(step)
    saved = checkpoint.read(run).decoding
    assert report.before == replace(before, test=None)
    assert report.decoding == saved
    assert saved.thresholds["a6"] == 0.5
    assert len(set(saved.thresholds.values())) > 2
    gains = [report.per_action[name].f1 - before.per_action[name].f1 for name in names[:6]]
    assert min(gains) >= 0
    assert sum(gain > 0 for gain in gains) > 2
    assert evaluate(run, QUIET) == replace(report, before=None)
    for name in names:
        (line,) = [line.split() for line in text.splitlines() if line.split()[:1] == [name] and len(line.split()) == 5]
        assert line[1:3] == ["0.500", f"{saved.thresholds[name]:.3f}"]
    assert f"exact match {before.exact_match:.3f} -> {report.exact_match:.3f}" in text
    policy = Policy.load(run)
    frame = np.zeros((3, 24, 32), np.uint8)
    p = policy.probabilities(frame)
    policy.reset()
    assert policy.act(frame).buttons.tolist() == (p.astype(np.float64) >= [*saved.thresholds.values()]).tolist()


def test_scores_on_the_frames_that_thresholds_were_tuned_on_say_so(run, tmp_path):
    """They do wherever these frames are met again, and only there; the scores of the test split stand beside them."""
    assert evaluate(run, QUIET).chosen_here == ["checkpoint"]
    report = evaluate(run, QUIET, tune=True)
    assert (report.split, report.chosen_here) == ("val", ["checkpoint", "thresholds"])
    assert report.before.chosen_here == ["checkpoint"]
    assert (report.test.split, report.test.chosen_here) == ("test", [])
    assert report.test.decoding == report.decoding
    alone = evaluate(run, QUIET, split="test")
    assert alone == report.test
    again, text = shown(run, json_file=tmp_path / "e.json")
    assert Evaluation.from_dict(json.loads((tmp_path / "e.json").read_text())) == again
    assert again.test == alone
    assert "was chosen by, given its thresholds by these frames (val): expect less on others" in text
    assert " on test of " in " ".join(text.split())
    assert evaluate(run, QUIET, split="val").test is None
    data = Path(checkpoint.read(run).config.dataset.path)
    shutil.copytree(data, tmp_path / "moved.zarr")
    moved = evaluate(run, QUIET, data=tmp_path / "moved.zarr")
    assert moved.chosen_here == ["parameters", "checkpoint", "thresholds"]
    assert evaluate(run, QUIET, split="train").chosen_here == ["parameters"]


def test_thresholds_tuned_on_other_data_were_not_chosen_on_the_validation_split(run, tmp_path, make_dataset):
    make_dataset(tmp_path / "other.zarr", [20, 40, 10], seed=9)
    evaluate(run, QUIET, data=tmp_path / "other.zarr", tune=True, force=True)
    assert "thresholds" not in evaluate(run, QUIET).chosen_here
    assert "thresholds" in evaluate(run, QUIET, data=tmp_path / "other.zarr").chosen_here


def test_thresholds_that_are_the_best_already_are_not_written_again(run):
    evaluate(run, QUIET, tune=True)
    files = {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()}
    report, text = shown(run, tune=True)
    assert "had the best thresholds already" in text
    assert report.before == replace(report, before=None, test=None)
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*") if p.is_file()} == files


def test_thresholds_are_chosen_on_the_validation_split_unless_forced(run):
    before = (checkpoint.find(run) / "meta" / "metadata").read_bytes()
    for options in ({"split": "train"}, {"split": "test"}, {"data": run.parent / "none.zarr"}):
        with pytest.raises(UserError, match=r"--tune on split '(train|test|all)': .* --force") as caught:
            evaluate(run, QUIET, tune=True, **options)
        assert "\n" not in str(caught.value)
    assert (checkpoint.find(run) / "meta" / "metadata").read_bytes() == before
    with pytest.raises(UserError, match="--force goes with --tune"):
        evaluate(run, QUIET, split="train", force=True)
    report = evaluate(run, QUIET, split="train", tune=True, force=True)
    assert report.split == "train"
    assert checkpoint.read(run).decoding == report.decoding


def test_the_command_tunes_and_writes_the_scores(run, tmp_path, monkeypatch):
    arguments = ["evaluate", str(run), "--tune", "--json", str(tmp_path / "tuned.json")]
    monkeypatch.setattr(sys, "argv", ["BC_training", *arguments])
    with pytest.raises(SystemExit) as ended:
        command_line.main()
    assert not ended.value.code
    report = Evaluation.from_dict(json.loads((tmp_path / "tuned.json").read_text()))
    assert checkpoint.read(run).decoding == report.decoding != report.before.decoding


def test_scores_of_a_checkpoint_that_samples_say_so(run):
    step, calm = checkpoint.find(run), evaluate(run, QUIET)
    rules = replace(checkpoint.read(run).decoding, temperature=1.0)
    write_decoding(step, rules)
    report, text = shown(run)
    assert "in play it samples at temperature 1" in text
    assert report.exact_match == calm.exact_match
    policy = Policy.load(run)
    frame, held = np.zeros((3, 24, 32), np.uint8), []
    for seed in (0, 1, 0):
        policy.reset(seed)
        held.append([policy.act(frame).buttons.tolist() for _ in range(5)])
    assert held[0] == held[2] != held[1]
