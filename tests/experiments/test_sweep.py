"""Sweeps of trainings of seconds, also in several processes, some of which are killed."""

import contextlib
import json
import os
import pickle
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from dataclasses import replace
from io import StringIO
from pathlib import Path

import pytest
import trainings
from pages import Page, require_self_contained
from rich.console import Console

from BC_training.common.config import load_config
from BC_training.common.errors import UserError
from BC_training.experiments import study as study_module
from BC_training.experiments import sweep as sweep_module
from BC_training.experiments.search_space import Choice, Range
from BC_training.experiments.study import Attempt, Study
from BC_training.experiments.sweep import Sweep, sweep
from BC_training.reports.sweep.page import Results
from BC_training.runtime.interruption import Interrupted

CONFIG = "configs/pure_cnn.yaml"
BUTTON = "per_action/a0/accuracy"
AGREED = {"objective": "loss", "space": {}, "config": {}, "dataset": ""}
SPACE = {"model.dropout": Range(0.0, 0.5, log=False), "training.loss": Choice(("bce", "focal"))}


@pytest.fixture(scope="module")
def data(tmp_path_factory, make_dataset):
    path = tmp_path_factory.mktemp("data") / "d.zarr"
    make_dataset(path, [32, 32])
    return path


def settings(folder, data, *more):
    small = ["model.conv_features=[4]", "model.conv_strides=[4]", "model.dense_features=[8]"]
    return trainings.settings(folder, data, "logging.report=false", "dataset.cache=none", *small, *more)


def run(folder, data, *more, trials, objective=None, **options):
    screen = StringIO()
    plan = Sweep.load(CONFIG, settings(folder, data, *more), objective)
    return sweep(plan, Console(file=screen, width=300), trials=trials, **options), screen.getvalue()


def scored(folder, trial):
    """The rows of a trial's log on the validation split."""
    lines = (folder / f"l/pure_cnn-{trial}/metrics.jsonl").read_text().splitlines()
    return [row for row in map(json.loads, lines) if row["kind"] == "val"]


def open_study(folder, storage="journal", agreed=AGREED, **options):
    return Study(folder, storage, agreed, SPACE, **({"maximized": False, "seed": 0, "prune": True} | options))


def test_bad_trials_end_early_and_those_that_the_config_refuses_fail(tmp_path, data, monkeypatch):
    monkeypatch.setattr(study_module, "_FIRST", 1)
    monkeypatch.setattr(study_module, "_FIRST_EPOCH", 1)
    # A rate of 1 is far too high, and a share of 0.4 leaves shares that do not sum to 1.
    drawn = ["training.learning_rate=1e-3|1", "dataset.split.val=0.5|0.4", "model.dropout=0..0.5"]
    drawn += ["system.seed=2", "training.warmup_steps=0"]  # with this seed each comes up
    found, screen = run(tmp_path, data, *drawn, trials=3, objective="loss")
    states = {trial.number: trial.state for trial in found.trials}
    assert set(states.values()) == {"complete", "pruned", "failed"}
    for trial in found.trials:
        refused = trial.values["dataset.split.val"] == "0.4"
        assert (trial.state == "failed") == refused
        assert refused == ("must sum to 1" in (trial.reason or ""))
        if refused:
            assert not (tmp_path / f"c/pure_cnn-{trial.number}").exists()
            continue
        rows = scored(tmp_path, trial.number)
        best = min(row["loss"] for row in rows) if trial.state == "complete" else rows[-1]["loss"]
        assert trial.value == pytest.approx(best, abs=1e-12)
        assert len(rows) == trial.epochs == (2 if trial.state == "complete" else 1)
        assert trainings.checkpoint.verify(trainings.checkpoint.find(tmp_path / f"c/pure_cnn-{trial.number}")) is None
        is_scored = (tmp_path / f"l/pure_cnn-{trial.number}/evaluation.json").exists()
        assert is_scored == (trial.state == "complete")
    completed = [trial for trial in found.trials if trial.state == "complete"]
    best = min(completed, key=lambda trial: trial.value or 0)
    assert best.number == found.best
    assert not found.maximized

    # The command trains the best one again.
    words = shlex.split(found.command or "")
    assert words[:6] == ["uv", "run", "-m", "BC_training", "--config", CONFIG]
    again, trained = load_config(CONFIG, words[6:]), load_config(tmp_path / f"l/pure_cnn-{best.number}/config.yaml")
    assert again.logging.run_name == "pure_cnn-best"
    assert replace(again, logging=trained.logging) == trained

    # Files, page and screen say the same; a second call trains nothing.
    folder = tmp_path / "l/pure_cnn-sweep"
    assert Results.from_dict(json.loads((folder / "sweep.json").read_text())) == found
    text = (folder / "report.html").read_text(encoding="utf-8")
    require_self_contained(text)
    page = Page(text)
    assert found.command is not None
    assert found.command in page.text
    assert "must sum to 1" in page.text
    assert len(page.of("circle")) == 4 * sum(trial.value is not None for trial in found.trials)
    assert f"best: trial {found.best}" in screen
    assert all(name in screen for name in ("learning_rate", "dropout", "must sum to 1", "is pruned"))
    before = sorted(path.name for path in (tmp_path / "c").iterdir())
    again, screen = run(tmp_path, data, *drawn, trials=3, objective="loss")
    assert again == found
    assert sorted(path.name for path in (tmp_path / "c").iterdir()) == before

    # What differs from the first call is named.
    for change, objective, message in (
        (["training.batch_size=8"], "loss", "training.batch_size 16 -> 8"),
        (["training.weight_decay=0..1"], "loss", r"training.weight_decay 0.0001 -> 0.0..1.0"),
        ([], "exact_match", "objective loss -> exact_match"),
    ):
        with pytest.raises(UserError, match=rf"was begun otherwise .*{message}"):
            run(tmp_path, data, *drawn, *change, trials=3, objective=objective)
    with pytest.raises(UserError, match=r"has its trials in study.jsonl: write --storage journal"):
        run(tmp_path, data, *drawn, trials=3, objective="loss", storage="sqlite")


def act_by_trial(folder: Path) -> None:
    """Makes this process kill itself when trial 0 has a score, and wait in trial 1 until there are three trials."""
    report = Attempt.report

    def wait_for(*files: str) -> None:
        end = time.monotonic() + 60
        while not all((folder / file).exists() for file in files):
            assert time.monotonic() < end, files
            time.sleep(0.01)

    def act(attempt: Attempt, epoch: int, value: float) -> bool:
        if attempt.number == 0:
            wait_for("c/pure_cnn-0/last/2", "both")
            os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
        (folder / "both").touch()
        wait_for("c/pure_cnn-2/last")
        return report(attempt, epoch, value)

    Attempt.report = act


def test_processes_share_a_study_and_one_goes_on_with_the_trial_of_another_that_is_killed(tmp_path, data):
    drawn = ["training.learning_rate=log:1e-4..1e-2", "model.dropout=0..0.5"]
    program = (
        "from pathlib import Path; from BC_training.__main__ import main; "
        f"from tests.experiments.test_sweep import act_by_trial; act_by_trial(Path({str(tmp_path)!r})); main()"
    )
    options = ["--trials", "3", "--objective", BUTTON]
    arguments = ["sweep", "--config", CONFIG, *options, *settings(tmp_path, data, *drawn)]
    command = [sys.executable, "-c", program, *arguments]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in "ab"]
    try:
        end = time.monotonic() + 60
        while all(process.poll() is None for process in processes) and time.monotonic() < end:
            time.sleep(0.05)
        killed, other = sorted(processes, key=lambda process: process.poll() is None)
        assert killed.returncode in (-9, signal.SIGTERM), killed.communicate()[0]
        assert other.poll() is None
        found, screen = run(tmp_path, data, *drawn, trials=3, objective=BUTTON)
        printed, _ = other.communicate(timeout=60)
        assert other.returncode == 0, printed
    finally:
        for process in processes:
            process.kill()
            process.communicate()
    assert "going on after step 2, epoch 1 of 2 done" in screen
    assert [trial.state for trial in found.trials if trial.number != 1] == ["complete", "complete"]
    final = Results.from_dict(json.loads((tmp_path / "l/pure_cnn-sweep/sweep.json").read_text()))
    assert [(trial.number, trial.state, trial.epochs) for trial in final.trials] == [
        (n, "complete", 2) for n in range(3)
    ]
    assert len({trial.values["model.dropout"] for trial in final.trials}) == 3
    log = map(json.loads, (tmp_path / "l/pure_cnn-0/metrics.jsonl").read_text().splitlines())
    assert [row["step"] for row in log] == [1, 2, 2, 2, 3, 4, 4, 4]  # each once, and twice more as an epoch ends
    for trial in final.trials:  # the best checkpoint's score; that is chosen by another
        best = max(scored(tmp_path, trial.number), key=lambda row: row["macro_f1"])
        assert trial.value == best[BUTTON]


def open_rows(folder):
    folder = folder / "l/pure_cnn-sweep"
    entries = map(json.loads, (folder / "study.jsonl").read_text().splitlines())
    (agreed,) = [entry["user_attr"]["agreed"] for entry in entries if "agreed" in entry.get("user_attr", {})]
    return Study(folder, "journal", agreed, {}, maximized=True, seed=0, prune=True).rows()


def test_a_sweep_whose_trials_all_fail_ends_with_an_error(tmp_path, data):
    with pytest.raises(UserError, match=r"all 2 trials failed; the last one: config: model.dropout=1"):
        run(tmp_path, data, "model.dropout=1.5..2", trials=2)
    with pytest.raises(UserError, match=r"all 2 trials failed"):
        run(tmp_path, data, "model.dropout=1.5..2", trials=2)


@pytest.mark.parametrize(
    ("drawn", "objective", "message"),
    [
        ("training.loss=bce|focal", "loss", "training.loss changes what the loss means"),
        ("model.dropout=0..0.5", "per_action/a9/f1", "did you mean 'per_action/a"),
    ],
)
def test_an_objective_that_does_not_compare_or_exist_is_refused(tmp_path, data, drawn, objective, message):
    with pytest.raises(UserError, match=message):
        run(tmp_path, data, drawn, trials=1, objective=objective)
    assert not list(tmp_path.iterdir())


def test_a_sweep_by_scores_in_play_that_is_stopped_goes_on_with_its_trial(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    more = [
        *("dataset.record={game: doom/basic, episodes: 2, frame_size: [24, 32]}", "evaluation.rollout.episodes=1"),
        *("evaluation.rollout.every_n_epochs=1", "evaluation.rollout.reference_means=[0, 1]", "system.workers=1"),
        *("evaluation.rollout.video=false", "model.dropout=0..0.5", "training.num_epochs=2", "training.batch_size=2"),
    ]
    dropped, report = ("dataset.record=null", "evaluation.rollout=null"), Attempt.report
    overrides = [item for item in settings(".", "d.zarr") if item not in dropped] + more
    plan = Sweep.load(CONFIG, overrides, "rollout")

    def stopping(attempt, epoch, value):
        signal.raise_signal(signal.SIGTERM)
        return report(attempt, epoch, value)

    with monkeypatch.context() as patch:
        patch.setattr(Attempt, "report", stopping)
        with pytest.raises(Interrupted, match=r"stopped by SIGTERM; saved after step"):
            sweep(plan, Console(file=StringIO()), trials=1)
    (trial,) = open_rows(tmp_path)
    assert (trial.state, trial.epochs) == ("running", 1)

    screen = StringIO()
    found = sweep(plan, Console(file=screen), trials=1)
    assert "going on after step" in screen.getvalue()
    (trial,) = found.trials
    assert (trial.state, trial.epochs, found.maximized) == ("complete", 2, True)
    log = map(json.loads, Path("l/pure_cnn-0/metrics.jsonl").read_text(encoding="utf-8").splitlines())
    assert trial.value == max(row["mean"] for row in log if row["kind"] == "rollout")


@pytest.mark.parametrize("storage", ["journal", "sqlite"])
def test_a_trial_belongs_to_one_process_and_fails_where_five_have_died_in_it(tmp_path, storage, monkeypatch):
    def refuse(*arguments):
        raise AssertionError("unpickled")

    monkeypatch.setattr(pickle, "loads", refuse)
    monkeypatch.setattr(pickle, "load", refuse)
    one, other = (open_study(tmp_path, storage) for _ in range(2))
    with one.next_trial(3) as first, other.next_trial(3) as second:
        assert first is not None
        assert second is not None
        assert (first.number, second.number, first.is_new) == (0, 1, True)
        assert first.values != second.values
        other.complete(second, 0.5)
    for deaths in range(1, 5):  # ``first`` was not told about; each time the process "dies"
        with contextlib.suppress(RuntimeError), one.next_trial(3) as found:
            assert found is not None
            assert (found.number, found.deaths, found.is_new, found.values) == (0, deaths, False, first.values)
            raise RuntimeError
    with contextlib.suppress(Interrupted), one.next_trial(3) as found:  # no death
        assert found is not None
        assert found.number == 2
        raise Interrupted
    with contextlib.suppress(Interrupted), other.next_trial(3) as found:
        assert found is not None
        assert (found.number, found.deaths, found.is_new) == (2, 0, False)
        other.complete(found, 0.25)
        raise Interrupted
    with other.next_trial(3) as found:
        assert found is None
    rows = open_study(tmp_path, storage).rows()
    assert [(row.state, row.value) for row in rows] == [("failed", None), ("complete", 0.5), ("complete", 0.25)]
    assert "died 5 times" in (rows[0].reason or "")
    if storage == "journal":
        assert all(json.loads(line) for line in (tmp_path / "study.jsonl").read_text().splitlines())
    else:
        with contextlib.closing(sqlite3.connect(tmp_path / "study.db")) as database:
            tables = [name for (name,) in database.execute("select name from sqlite_master where type = 'table'")]
            kinds = {column[2] for name in tables for column in database.execute(f"pragma table_info({name})")}
            assert "BLOB" not in kinds


def test_a_line_that_was_not_written_whole_is_cut_off_and_another_file_is_refused(tmp_path):
    with open_study(tmp_path).next_trial(1) as found:
        assert found is not None
    with open(tmp_path / "study.jsonl", "ab") as file:
        file.write(b'{"op_code":4,"worker')
    with open_study(tmp_path).next_trial(1) as again:
        assert again is not None
        assert again.values == found.values
    (tmp_path / "study.jsonl").write_text("[]\n")
    with pytest.raises(UserError, match=r"study.jsonl cannot be read .*: restore it"):
        open_study(tmp_path)
    (tmp_path / "x").mkdir()
    (tmp_path / "x/study.db").write_text("no database" * 100)
    with pytest.raises(UserError, match=r"study.db cannot be read .*: restore it"):
        open_study(tmp_path / "x", "sqlite")


def test_a_trial_that_does_not_fit_into_memory_fails_and_a_full_disk_ends_the_sweep(tmp_path, data, monkeypatch):
    def train(*arguments, **options):
        raise errors.pop()

    full = UserError("the disk is full")
    full.__cause__ = OSError(28, "No space left on device")
    errors = [full, MemoryError("cannot allocate")]
    monkeypatch.setattr(sweep_module, "train", train)
    with pytest.raises(UserError, match=r"the disk is full"):
        run(tmp_path, data, "model.dropout=0..0.5", trials=2)
    assert [(row.state, row.reason) for row in open_rows(tmp_path)] == [
        ("failed", "out of memory: cannot allocate"),
        ("running", None),
    ]
