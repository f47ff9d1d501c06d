import contextlib
import dataclasses
import io
import json
import resource
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from BC_training.common.schema import Config
from BC_training.training.tracking import EpochTable, Tracker


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=300, color_system=None)


@pytest.fixture
def config(make_config):
    """Makes a configuration with W&B off or on."""

    def make(wandb: bool):
        config = make_config()
        options = dataclasses.replace(config.logging.wandb, enabled=wandb, tags=("a",))
        return dataclasses.replace(config, logging=dataclasses.replace(config.logging, wandb=options, run_name="run"))

    return make


@pytest.fixture
def wandb(monkeypatch):
    """A stand-in for the wandb package, which notes its calls; each part can be made to fail."""
    noted = SimpleNamespace(inits=[], logs=[], finished=0, has_key=True, failing=set())
    monkeypatch.delenv("WANDB_MODE", raising=False)

    def part(name, function):
        def call(*args, **kwargs):
            if name in noted.failing:
                raise RuntimeError("no network [/path]\nat all")
            return function(*args, **kwargs)

        return call

    def init(**options):
        noted.inits.append(options)
        if f"init {options['mode']}" in noted.failing:
            raise RuntimeError("no network [/path]\nat all")
        folder = options["dir"] / "wandb" / "run-1"
        return SimpleNamespace(log=part("log", log), finish=part("finish", finish), dir=str(folder / "files"))

    def log(values, step):
        noted.logs.append((values, step))

    def finish(exit_code):
        noted.finished += 1
        noted.exit_code = exit_code

    def login(**options):
        assert options["prompt"] is False
        return noted.has_key

    module = SimpleNamespace(Settings=lambda **options: options, login=part("login", login), init=init)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return noted


def rows(tracker: Tracker) -> list[dict]:
    return [json.loads(line) for line in tracker.path.read_text().splitlines()]


def track(folder: Path, config: Config, console: Console, **options: Any) -> Tracker:
    """Logs a row, and ends."""
    with Tracker(folder, config, console, **options) as tracker:
        tracker.log("train", 5, {"loss": 0.5})
    return tracker


def printed(console: Console) -> str:
    return console.file.getvalue()


def test_every_row_is_written_at_once_as_a_line(tmp_path, config, console):
    with Tracker(tmp_path / "logs" / "run", config(wandb=False), console) as tracker:
        tracker.log("train", 5, {"loss": 0.5})
        assert rows(tracker) == [{"kind": "train", "step": 5, "loss": 0.5}]  # before the file is closed
        tracker.log("val", 10, {"per_action/a0/f1": 1.0})
    assert rows(tracker)[1] == {"kind": "val", "step": 10, "per_action/a0/f1": 1.0}
    assert printed(console) == ""


def test_wandb_mirrors_the_rows(tmp_path, config, console, wandb):
    track(tmp_path, config(wandb=True), console)
    (options,) = wandb.inits
    assert (options["mode"], options["name"], options["tags"], options["dir"]) == ("online", "run", ["a"], tmp_path)
    assert options["config"]["training"]["batch_size"] == 64
    assert wandb.logs == [({"train/loss": 0.5}, 5)]
    assert wandb.finished == 1
    assert printed(console) == ""


@pytest.mark.parametrize(
    ("has_key", "failing", "variable", "modes", "message"),
    [
        (False, set(), None, ["offline"], "offline (no key)"),
        (True, {"login"}, None, ["offline"], "offline (no network [/path])"),
        (True, {"init online"}, None, ["online", "offline"], "offline (no network [/path])"),
        (True, set(), "disabled", ["disabled"], "disabled (WANDB_MODE=disabled)"),
    ],
)
def test_where_wandb_cannot_be_online_it_is_offline_and_says_why(
    tmp_path, config, console, wandb, monkeypatch, has_key, failing, variable, modes, message
):
    wandb.has_key, wandb.failing = has_key, failing
    if variable is not None:
        monkeypatch.setenv("WANDB_MODE", variable)
    track(tmp_path, config(wandb=True), console)
    assert [options["mode"] for options in wandb.inits] == modes
    assert message in printed(console)
    assert len(wandb.logs) == 1


@pytest.mark.parametrize("failing", [{"init online", "init offline"}, {"log"}, {"finish"}, {"log", "finish"}])
def test_no_failure_of_wandb_ends_the_run(tmp_path, config, console, wandb, failing):
    wandb.failing = failing
    with Tracker(tmp_path, config(wandb=True), console) as tracker:
        for step in range(3):
            tracker.log("train", step, {"loss": 1.0})
    assert len(rows(tracker)) == 3
    assert "W&B" in printed(console)
    assert "no network [/path]" in printed(console)


def test_the_epoch_table_has_a_row_for_each_epoch(console):
    table = EpochTable(console)
    row = {"epoch": 1, "train_loss": 0.12345, "frames_per_second": 1234.5}
    table.add(row, is_best=False)
    table.add(row | {"val": {"loss": 0.5, "exact_match": 0.25, "macro_f1": None, "rollout": -1.6}}, is_best=True)
    lines = [line.split() for line in printed(console).splitlines()]
    assert lines[0] == ["epoch", "train", "loss", "val", "loss", "exact", "match", "macro", "F1", "return", "frames/s"]
    assert lines[1] == ["1", "0.1235", "–", "–", "–", "–", "1,234"]
    assert lines[2] == ["1", "0.1235", "0.500", "0.250", "–", "-1.60", "1,234", "best"]


def lines(*steps: int) -> str:
    return "".join(json.dumps({"kind": "train", "step": step}) + "\n" for step in steps)


def test_a_log_goes_on_at_the_position_of_the_checkpoint(tmp_path, config, console):
    with Tracker(tmp_path, config(wandb=False), console) as tracker:
        tracker.log("train", 0, {})
        position = tracker.position()
        tracker.log("train", 1, {})
    assert position == len(lines(0))
    with Tracker(tmp_path, config(wandb=False), console, position=position) as tracker:
        assert tracker.position() == position
        tracker.log("train", 1, {})
        assert tracker.position() == len(lines(0, 1))
    assert tracker.path.read_text() == lines(0, 1)
    assert printed(console) == ""


@pytest.mark.parametrize(
    ("found", "position", "kept"),
    [
        (None, 30, ""),
        ("", 30, ""),
        (lines(0), None, lines(0)),
        (lines(0), 10_000, lines(0)),
        (lines(0) + '{"kind": "tra', 10_000, lines(0)),  # its writer was killed
        (lines(0, 1), len(lines(0)) + 3, lines(0)),
        (lines(0) + json.dumps("x" * 200_000) + "\n" + json.dumps("y" * 200_000), None, None),
    ],
)
def test_whole_lines_of_a_log_are_kept(tmp_path, config, console, found, position, kept):
    if found is not None:
        (tmp_path / "metrics.jsonl").write_text(found)
    found = found or ""
    with Tracker(tmp_path, config(wandb=False), console, position=position) as tracker:
        tracker.log("train", 7, {})
    if kept is None:
        kept = found[: found.rindex("\n") + 1]
    assert tracker.path.read_text() == kept + lines(7)
    shorter = position is not None and position > len(found)
    assert printed(console).count("\n") == shorter
    if shorter:
        assert f"has {len(found):,} bytes, not the {position:,} of the checkpoint" in printed(console)


@contextlib.contextmanager
def largest_file(size: int):
    """Writing past ``size`` bytes of a file fails, after as much as fits."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_delays_rows_and_loses_none(tmp_path, config, console):
    with contextlib.ExitStack() as full, Tracker(tmp_path, config(wandb=False), console) as tracker:
        for step in range(18):
            if step in (4, 10, 16):
                full.enter_context(largest_file(tracker.position() + 10))  # room for a part of a row
            if step in (7, 13):
                full.close()
            tracker.log("train", step, {})
            whole = {4: 4, 5: 4, 6: 4, 10: 10, 11: 10, 12: 10, 16: 16, 17: 16}.get(step, step + 1)
            assert tracker.path.read_text() == lines(*range(whole))
            assert tracker.position() == len(lines(*range(whole)))
    assert tracker.path.read_text() == lines(*range(16))
    messages = printed(console).splitlines()
    full_disk, again = f"cannot write {tracker.path} (File too large): rows are kept", f"{tracker.path} can be written"
    assert len(messages) == 6
    assert [line.startswith(full_disk) for line in messages] == [True, False, True, False, True, False]
    assert [line.startswith(again) for line in messages] == [False, True, False, True, False, False]
    assert messages[-1].startswith("the last 2 rows are not in")


def test_processes_beside_the_first_write_nothing(tmp_path, config, console, wandb):
    with Tracker(tmp_path / "logs", config(wandb=True), console, writes=False) as tracker:
        tracker.log("train", 0, {})
        assert (tracker.position(), tracker.wandb_id) == (0, None)
    assert not (tmp_path / "logs").exists()
    assert wandb.inits == []


def test_a_wandb_run_is_continued(tmp_path, config, console, wandb):
    ids = [track(tmp_path, config(wandb=True), console).wandb_id]
    for given in (ids[0], None):
        ids.append(track(tmp_path, config(wandb=True), console, wandb_id=given).wandb_id)
    assert ids[0] == ids[1] != ids[2]
    assert [(run["id"], run["resume"]) for run in wandb.inits] == list(zip(ids, (None, "allow", None), strict=True))


def test_wandb_gets_the_exit_code_of_the_run(tmp_path, config, console, wandb):
    def run(row) -> int:
        with contextlib.suppress(TypeError), Tracker(tmp_path, config(wandb=True), console) as tracker:
            tracker.log("train", 1, {})
            tracker.log("train", 2, row)
        return wandb.exit_code

    assert run({}) == 0
    assert run({"loss": object()}) == 1


def test_a_run_without_rows_does_not_start_wandb(tmp_path, config, console, wandb):
    with Tracker(tmp_path, config(wandb=True), console):
        pass
    assert wandb.inits == []
    assert printed(console) == ""
