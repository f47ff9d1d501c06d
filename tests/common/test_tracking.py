import dataclasses
import io
import json
import sys
import warnings
from types import SimpleNamespace

import pytest
from rich.console import Console

from BC_training.common.tracking import EpochTable, Tracker


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=300, color_system=None)


@pytest.fixture
def config(make_config):
    """A configuration with W&B off, or on."""

    def make(wandb: bool):
        config = make_config()
        options = dataclasses.replace(config.logging.wandb, enabled=wandb, tags=("a",))
        return dataclasses.replace(config, logging=dataclasses.replace(config.logging, wandb=options, run_name="run"))

    return make


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in for the wandb package: notes what it is told; each part can be made to fail."""
    told = SimpleNamespace(inits=[], logs=[], finished=0, has_key=True, failing=set(), message="no network\nat all")
    monkeypatch.delenv("WANDB_MODE", raising=False)

    def part(name, function):
        def call(*args, **kwargs):
            if name in told.failing:
                raise RuntimeError(told.message)
            return function(*args, **kwargs)

        return call

    def init(**options):
        told.inits.append(options)
        if f"init {options['mode']}" in told.failing:
            raise RuntimeError(told.message)
        return SimpleNamespace(log=part("log", log), finish=part("finish", finish))

    def log(values, step):
        told.logs.append((values, step))

    def finish():
        told.finished += 1

    def login(**options):
        assert options["prompt"] is False
        return told.has_key

    module = SimpleNamespace(Settings=lambda **options: options, login=part("login", login), init=init)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return told


def rows(tracker: Tracker) -> list[dict]:
    return [json.loads(line) for line in tracker.path.read_text().splitlines()]


def printed(console: Console) -> str:
    return console.file.getvalue()


def test_every_row_is_a_line_at_once(tmp_path, config, console):
    with Tracker(tmp_path / "logs" / "run", config(wandb=False), console) as tracker:
        tracker.log("train", 5, {"loss": 0.5})
        assert rows(tracker) == [{"kind": "train", "step": 5, "loss": 0.5}]  # before the file is closed
        tracker.log("val", 10, {"per_action/a0/f1": 1.0})
    assert rows(tracker)[1] == {"kind": "val", "step": 10, "per_action/a0/f1": 1.0}
    assert printed(console) == ""


def test_rows_are_appended(tmp_path, config, console):
    for step in range(2):
        with Tracker(tmp_path, config(wandb=False), console) as tracker:
            tracker.log("train", step, {})
    assert [row["step"] for row in rows(tracker)] == [0, 1]


def test_wandb_mirrors_the_rows(tmp_path, config, console, wandb):
    with Tracker(tmp_path, config(wandb=True), console) as tracker:
        tracker.log("train", 5, {"loss": 0.5})
    (options,) = wandb.inits
    assert (options["mode"], options["name"], options["tags"], options["dir"]) == ("online", "run", ["a"], tmp_path)
    assert options["config"]["training"]["batch_size"] == 64
    assert wandb.logs == [({"train/loss": 0.5}, 5)]
    assert wandb.finished == 1
    assert printed(console) == ""


def test_without_a_key_wandb_is_offline(tmp_path, config, console, wandb):
    wandb.has_key = False
    with Tracker(tmp_path, config(wandb=True), console):
        pass
    assert [options["mode"] for options in wandb.inits] == ["offline"]
    assert "offline (no key)" in printed(console)


def test_wandb_mode_of_the_environment_wins(tmp_path, config, console, wandb, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with Tracker(tmp_path, config(wandb=True), console):
        pass
    assert [options["mode"] for options in wandb.inits] == ["disabled"]


def test_offline_where_online_fails(tmp_path, config, console, wandb):
    wandb.failing = {"init online"}
    with Tracker(tmp_path, config(wandb=True), console) as tracker:
        tracker.log("train", 1, {"loss": 1.0})
    assert [options["mode"] for options in wandb.inits] == ["online", "offline"]
    assert "offline (no network)" in printed(console)
    assert len(wandb.logs) == 1


@pytest.mark.parametrize("failing", [{"init online", "init offline"}, {"log"}, {"finish"}, {"log", "finish"}])
def test_no_failure_of_wandb_ends_the_run(tmp_path, config, console, wandb, failing):
    wandb.failing = failing
    with Tracker(tmp_path, config(wandb=True), console) as tracker:
        for step in range(3):
            tracker.log("train", step, {"loss": 1.0})
    assert len(rows(tracker)) == 3
    assert "W&B" in printed(console)
    assert "no network" in printed(console)


def test_a_key_that_wandb_refuses_does_not_end_the_run(tmp_path, config, console, wandb):
    wandb.failing, failure = {"login"}, None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # metrics.jsonl stays open where the constructor raises
        try:
            with Tracker(tmp_path, config(wandb=True), console) as tracker:
                tracker.log("train", 0, {"loss": 1.0})
        except RuntimeError as error:
            failure = str(error)
    assert failure is None
    assert "no network" in printed(console)


def test_a_failure_with_brackets_in_its_message(tmp_path, config, console, wandb):
    wandb.failing, wandb.message = {"log"}, "refused [/path]"
    with Tracker(tmp_path, config(wandb=True), console) as tracker:
        tracker.log("train", 0, {"loss": 1.0})
    assert "refused [/path]" in printed(console)


def test_epoch_table(console):
    table = EpochTable(console)
    row = {"epoch": 1, "train_loss": 0.12345, "frames_per_second": 1234.5}
    table.add(row, is_best=False)
    table.add(row | {"val": {"loss": 0.5, "exact_match": 0.25, "macro_f1": None}}, is_best=True)
    lines = [line.split() for line in printed(console).splitlines()]
    assert lines[0] == ["epoch", "train", "loss", "val", "loss", "exact", "match", "macro", "F1", "frames/s"]
    assert lines[1] == ["1", "0.1235", "–", "–", "–", "1,234"]
    assert lines[2] == ["1", "0.1235", "0.500", "0.250", "–", "1,234", "best"]
