import contextlib
import dataclasses
import io
import json
import resource
import subprocess
import sys
from types import SimpleNamespace

import pytest
from rich.console import Console

from BC_training.training.tracking import EpochTable, Tracker


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
        folder = options["dir"] / "wandb" / "run-1"
        return SimpleNamespace(log=part("log", log), finish=part("finish", finish), dir=str(folder / "files"))

    def log(values, step):
        told.logs.append((values, step))

    def finish(exit_code):
        told.finished += 1
        told.exit_code = exit_code

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
    with Tracker(tmp_path, config(wandb=True), console) as tracker:
        tracker.log("train", 1, {"loss": 1.0})
    assert [options["mode"] for options in wandb.inits] == ["offline"]
    assert "offline (no key)" in printed(console)


def test_wandb_mode_of_the_environment_wins(tmp_path, config, console, wandb, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    with Tracker(tmp_path, config(wandb=True), console) as tracker:
        tracker.log("train", 1, {"loss": 1.0})
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
    wandb.failing = {"login"}
    with Tracker(tmp_path, config(wandb=True), console) as tracker:
        tracker.log("train", 0, {"loss": 1.0})
    assert [options["mode"] for options in wandb.inits] == ["offline"]
    assert "no network" in printed(console)


def test_a_failure_with_brackets_in_its_message(tmp_path, config, console, wandb):
    wandb.failing, wandb.message = {"log"}, "refused [/path]"
    with Tracker(tmp_path, config(wandb=True), console) as tracker:
        tracker.log("train", 0, {"loss": 1.0})
    assert "refused [/path]" in printed(console)


def test_the_epoch_table_has_a_row_per_epoch(console):
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


def test_a_log_is_continued_where_the_checkpoint_was(tmp_path, config, console):
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
        ("", 30, ""),
        (lines(0), 10_000, lines(0)),
        (lines(0) + '{"kind": "tra', 10_000, lines(0)),  # its writer was killed
        (lines(0, 1), len(lines(0)) + 3, lines(0)),
        (lines(0) + json.dumps("x" * 200_000) + "\n" + json.dumps("y" * 200_000), None, None),
    ],
)
def test_what_is_kept_of_a_log_is_whole_lines(tmp_path, config, console, found, position, kept):
    (tmp_path / "metrics.jsonl").write_text(found)
    with Tracker(tmp_path, config(wandb=False), console, position=position) as tracker:
        tracker.log("train", 7, {})
    if kept is None:
        kept = found[: found.rindex("\n") + 1]
    assert tracker.path.read_text() == kept + lines(7)
    shorter = position is not None and position > len(found)
    assert printed(console).count("\n") == shorter
    if shorter:
        assert f"has {len(found):,} bytes, not the {position:,} of the checkpoint" in printed(console)


def test_a_missing_log_is_begun_again(tmp_path, config, console):
    with Tracker(tmp_path / "new", config(wandb=False), console, position=30) as tracker:
        tracker.log("train", 7, {})
    assert tracker.path.read_text() == lines(7)
    assert "has 0 bytes" in printed(console)


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
    said = printed(console).splitlines()
    full_disk, again = f"cannot write {tracker.path} (File too large): rows are kept", f"{tracker.path} can be written"
    assert len(said) == 6
    assert [line.startswith(full_disk) for line in said] == [True, False, True, False, True, False]
    assert [line.startswith(again) for line in said] == [False, True, False, True, False, False]
    assert said[-1].startswith("the last 2 rows are not in")


def test_a_full_file_system_delays_rows_and_loses_none(tmp_path, config, console):
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", folder], capture_output=True).returncode:
        pytest.skip("cannot mount a small file system here")
    try:
        with Tracker(folder, config(wandb=False), console) as tracker:
            for step in range(100):
                if step == 20:
                    (folder / "filler").write_bytes(bytes(48 * 1024))
                if step == 90:
                    assert "No space left on device" in printed(console)
                    (folder / "filler").unlink()
                tracker.log("train", step, {"text": "x" * 200})
        assert [row["step"] for row in rows(tracker)] == list(range(100))
        assert printed(console).count("\n") == 2
    finally:
        subprocess.run(["umount", folder], check=True)


def test_the_other_processes_write_nothing(tmp_path, config, console, wandb):
    with Tracker(tmp_path / "logs", config(wandb=True), console, writes=False) as tracker:
        tracker.log("train", 0, {})
        assert (tracker.position(), tracker.wandb_id) == (0, None)
    assert not (tmp_path / "logs").exists()
    assert wandb.inits == []


def test_a_wandb_run_is_continued(tmp_path, config, console, wandb):
    ids = []
    for given in (None, "first", None):
        with Tracker(tmp_path, config(wandb=True), console, wandb_id=ids[0] if given else None) as tracker:
            tracker.log("train", 1, {})
        ids.append(tracker.wandb_id)
    assert ids[0] == ids[1] != ids[2]
    assert [(run["id"], run["resume"]) for run in wandb.inits] == list(zip(ids, (None, "allow", None), strict=True))


def test_wandb_is_told_whether_the_run_failed(tmp_path, config, console, wandb):
    def run(row) -> int:
        with contextlib.suppress(TypeError), Tracker(tmp_path, config(wandb=True), console) as tracker:
            tracker.log("train", 1, {})
            tracker.log("train", 2, row)
        return wandb.exit_code

    assert run({}) == 0
    assert run({"loss": object()}) == 1


def test_a_run_without_rows_is_none_in_wandb(tmp_path, config, console, wandb):
    with Tracker(tmp_path, config(wandb=True), console):
        pass
    assert wandb.inits == []
    assert printed(console) == ""
