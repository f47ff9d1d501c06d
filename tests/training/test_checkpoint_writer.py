import dataclasses
import errno
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dataset_files import flip_bit, user_error
from rich.console import Console
from untrained import save

from BC_training.common.errors import UserError
from BC_training.common.schema import Config
from BC_training.training import checkpoint_writer
from BC_training.training.checkpoint import find, read_state, verify
from BC_training.training.checkpoint_writer import CheckpointWriter
from BC_training.training.run_folder import copy_step, lock_run, move_aside, newest, run_folders, set_aside_damaged
from BC_training.training.train_state import TrainState


def a_state(step: int, size: int = 8) -> TrainState:
    """A state whose arrays depend on the step."""
    draw = np.random.default_rng(step).normal
    return TrainState(
        jnp.int32(step),
        {"w": jnp.asarray(draw(size=(size, 4)), jnp.float32)},
        {"mean": jnp.asarray(draw(size=4), jnp.float32)},
        {"mu": jnp.asarray(draw(size=(size, 4)), jnp.float32), "count": jnp.int32(step)},
    )


def is_of(folder: Path, step: int, size: int = 8) -> bool:
    """Whether a checkpoint is whole and holds ``a_state(step, size)``."""
    verify(folder)
    found = read_state(folder, a_state(0, size))
    return jax.tree.all(jax.tree.map(lambda x, y: bool(np.array_equal(x, y)), found, a_state(step, size)))


def steps(folder: Path) -> list[int]:
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def hidden(run: Path) -> list[str]:
    return [p.name for p in run.rglob(".*") if p.name != ".lock"]


@pytest.fixture
def console() -> Console:
    return Console(file=StringIO(), width=1000)


def printed_lines(console: Console) -> list[str]:
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


@pytest.fixture
def run(tmp_path) -> Iterator[Path]:
    with lock_run(tmp_path / "run"):
        yield tmp_path / "run"


@pytest.fixture
def writer(run, console) -> Iterator[CheckpointWriter]:
    with CheckpointWriter(run, 2, console) as writer:
        yield writer


# --- which are kept, and what they hold ----------------------------------------------------


def test_the_last_checkpoints_and_the_best_one_are_kept(run, writer, console):
    assert newest(run) == "nothing was saved yet"
    for step, is_best in ((8, True), (9, True), (10, False), (11, False)):
        save(writer, a_state(step), is_best)
    writer.finish()
    assert (steps(run / "best"), steps(run / "last")) == ([9], [10, 11])  # as numbers, not as text
    assert newest(run) == "the checkpoint of step 11 is kept"
    assert hidden(run) == []
    assert printed_lines(console) == []
    assert find(run) == run / "best" / "9"
    for folder in (run / "best" / "9", run / "last" / "10", run / "last" / "11"):
        assert is_of(folder, int(folder.name))


def test_in_a_run_that_was_never_evaluated_the_last_checkpoint_is_found(run, writer):
    for step in (9, 10):
        save(writer, a_state(step), False)
    writer.finish()
    assert find(run) == run / "last" / "10"


def test_the_state_at_the_call_is_saved_although_the_next_step_donates_its_buffers(run, writer, monkeypatch):
    mine = jax.jit(lambda: jax.tree.map(jnp.asarray, a_state(1)))()
    wait = checkpoint_writer.write_checksums
    released = checkpoint_writer.ThreadPoolExecutor(1)
    deleted = released.submit(lambda: None)

    def write_later(partial):
        deleted.result()
        wait(partial)

    monkeypatch.setattr(checkpoint_writer, "write_checksums", write_later)
    save(writer, mine)
    donated = jax.jit(lambda s: jax.tree.map(lambda x: x * 0 - 1, s), donate_argnums=0)(mine)
    assert all(x.is_deleted() for x in jax.tree.leaves(mine))
    writer.finish()
    released.shutdown()
    assert int(donated.step) == -1
    assert is_of(run / "last" / "1", 1)
    assert is_of(run / "best" / "1", 1)


def test_the_best_checkpoint_is_written_before_the_last_one(run, writer, monkeypatch):
    written = []
    commit = CheckpointWriter._commit

    def note(self, folder, snapshot):
        written.append((folder.name, snapshot.meta.step))
        commit(self, folder, snapshot)

    monkeypatch.setattr(CheckpointWriter, "_commit", note)
    for step, is_best in ((1, True), (2, False)):
        save(writer, a_state(step), is_best)
    writer.finish()
    assert written == [("best", 1), ("last", 1), ("last", 2)]


def test_a_step_saved_again_replaces_the_first(run, writer):
    for epoch in (0, 1):
        save(writer, a_state(5), epoch == 1, epoch=epoch)
        writer.finish()
    assert json.loads((run / "last" / "5" / "meta" / "metadata").read_text())["epoch"] == 1
    assert is_of(run / "last" / "5", 5)
    assert (steps(run / "best"), steps(run / "last"), hidden(run)) == ([5], [5], [])


@pytest.mark.parametrize("step", [1, 2])
def test_a_checkpoint_damaged_while_it_is_written_does_not_replace_a_good_one(run, console, monkeypatch, step):
    with CheckpointWriter(run, 1, console) as writer:
        save(writer, a_state(1), True)
        writer.finish()
        sync_all = checkpoint_writer.sync_all

        def damage(path):
            flip_bit(path / "meta" / "metadata")
            sync_all(path)

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint_writer, "sync_all", damage)
            save(writer, a_state(step), False)
            with pytest.raises(UserError):
                writer.finish()
        assert steps(run / "last") == steps(run / "best") == [1]
        assert is_of(run / "last" / "1", 1)
        assert hidden(run) == []


# --- what a killed writer leaves -----------------------------------------------------------


def test_leftovers_are_removed_and_a_replaced_step_comes_back_if_its_successor_is_missing(tmp_path, console):
    run = tmp_path / "run"
    with lock_run(run), CheckpointWriter(run, 2, console) as writer:
        for step in (1, 2):
            save(writer, a_state(step), True)
        writer.finish()
    shutil.copytree(run / "last" / "2", run / "last" / ".partial-3")
    shutil.copytree(run / "last" / "2", run / "last" / ".partial-removed")
    shutil.copytree(run / "last" / "1", run / "last" / ".replaced-1")  # its successor is there
    (run / "best" / "2").rename(run / "best" / ".replaced-2")  # as if killed between the two renames
    flip_bit(run / "last" / ".replaced-1" / "meta" / "metadata")
    with lock_run(run):
        assert hidden(run) == []
        assert (steps(run / "best"), steps(run / "last")) == ([2], [1, 2])
        assert is_of(run / "best" / "2", 2)
        assert is_of(run / "last" / "1", 1)


KILLED = """
import json, os, random, signal, sys, time
from pathlib import Path
from rich.console import Console
import jax.numpy as jnp
from BC_training.training.checkpoint import verify
from BC_training.training.checkpoint_writer import CheckpointWriter
from BC_training.training.run_folder import lock_run
from BC_training.common.errors import UserError
from untrained import save
from BC_training.training.train_state import TrainState

def train(run, first, ready):
    state = TrainState(jnp.int32(0), {"w": jnp.ones((8, 4))}, {"m": jnp.ones(4)}, {"mu": jnp.zeros((8, 4))})
    with lock_run(run), CheckpointWriter(run, 2, Console(quiet=True)) as writer:
        for i in range(first, first + 1000):
            save(writer, state._replace(step=jnp.int32(i // 2)), i % 3 == 0, epoch=i)  # each step twice
            if i == first + 1:
                os.write(ready, b"x")  # the first is committed

def steps(folder):
    return sorted((p for p in folder.glob("*") if p.name.isdigit()), key=lambda p: int(p.name))

run, rounds, rng = Path(sys.argv[1]), int(sys.argv[2]), random.Random(0)
leftovers, refusals = 0, set()
for turn in range(rounds):
    reads, writes = os.pipe()
    child = os.fork()  # no thread runs here yet, and importing takes longer than all the rest
    if not child:
        signal.alarm(60)  # ends with this test also where that fails
        train(run, 1000 * turn, writes)
        os._exit(1)
    os.close(writes)
    assert os.read(reads, 1), "it ended before it was killed"
    os.close(reads)
    time.sleep(rng.uniform(0, 0.25))
    try:
        with lock_run(run):
            refusals.add("none")
    except UserError as error:
        refusals.add(str(error))
    os.kill(child, signal.SIGKILL)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    leftovers += len(list(run.glob("*/.*")))
    with lock_run(run):  # which the killed one held
        kept = steps(run / "last")
        newest = json.loads((kept[-1] / "meta" / "metadata").read_text())
        assert newest["epoch"] >= 1000 * turn, (newest, turn)
        for step in (*kept, *steps(run / "best")):
            verify(step)
        assert 1 <= len(kept) <= 3 and len(steps(run / "best")) <= 2, kept
        assert not list(run.glob("*/.*"))
print(json.dumps({"leftovers": leftovers, "refusals": [*refusals]}))
"""


@pytest.mark.parametrize("rounds", [4, pytest.param(150, marks=pytest.mark.slow)])
def test_killed_at_any_instant_every_checkpoint_is_whole(tmp_path, rounds):
    """Until it is killed no other process can lock the run."""
    command = [sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path / "run"), str(rounds)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert len(result["refusals"]) == 1
    assert result["refusals"][0].startswith(f"another training is running in {tmp_path / 'run'}: ")
    assert "\n" not in result["refusals"][0]
    assert result["leftovers"] > 0, "it was never killed in the middle of a commit"


# --- a full disk ---------------------------------------------------------------------------

SIZE = 16_384  # rows of a state of half a MB

# Orbax leaves unfinished writes behind, which raise exceptions when they are collected.
leaves_writes = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 4 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("may not mount a small disk here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


def fill(disk: Path, leave: int) -> Path:
    """Leaves ``leave`` bytes free."""
    filler = disk / "filler"
    filler.write_bytes(bytes(shutil.disk_usage(disk).free - leave))
    return filler


@leaves_writes
@pytest.mark.parametrize("leave", [0, 100_000, 300_000])
def test_a_full_disk_does_not_stop_a_training_that_has_a_checkpoint(small_disk, console, monkeypatch, leave):
    monkeypatch.setattr(checkpoint_writer, "_RETRY", 0.0)
    monkeypatch.setattr(checkpoint_writer, "_SPACE_MARGIN", 0.0)  # so that writing begins
    run = small_disk / "run"
    with lock_run(run), CheckpointWriter(run, 1, console) as writer:
        save(writer, a_state(1, SIZE), True)
        writer.finish()
        filler = fill(small_disk, leave)
        for step in (2, 3, 4):
            save(writer, a_state(step, SIZE), step == 3)
            for _ in range(2):
                writer.poll()
                settle(writer)
        writer.poll()
        settle(writer)
        writer.poll()
        lines = printed_lines(console)
        assert len(lines) == 1
        assert "is full" in lines[0]
        assert "step 1 is kept" in lines[0]
        settle(writer)
        assert steps(run / "best") == steps(run / "last") == [1]
        verify(run / "best" / "1")
        verify(run / "last" / "1")
        message = user_error(writer.finish)
        assert "step 3, 4 could not be saved" in message
        assert "step 1 is kept" in message
        filler.unlink()
        for _ in range(2):
            writer.poll()
            settle(writer)
        assert printed_lines(console)[1:] == ["checkpoints can be saved again: the checkpoint of step 4 is kept"]
        writer.finish()
    assert (steps(run / "best"), steps(run / "last"), hidden(run)) == ([3], [4], [])
    assert is_of(run / "best" / "3", 3, SIZE)
    assert is_of(run / "last" / "4", 4, SIZE)


def settle(writer: CheckpointWriter) -> None:
    """Waits for the thread; the writer does not look at its result yet."""
    if writer._writing is not None:
        writer._writing.exception()


@leaves_writes
@pytest.mark.parametrize("margin", [checkpoint_writer._SPACE_MARGIN, 0.0])
def test_a_disk_too_small_for_the_first_checkpoint_ends_the_training(small_disk, console, monkeypatch, margin):
    monkeypatch.setattr(checkpoint_writer, "_SPACE_MARGIN", margin)
    run = small_disk / "run"
    with lock_run(run), CheckpointWriter(run, 1, console) as writer:
        fill(small_disk, 400_000)
        save(writer, a_state(1, SIZE), True)
        settle(writer)
        message = user_error(writer.poll)
        assert "is full" in message
        assert not margin or "0 MB free, a checkpoint needs 1 MB" in message
        assert printed_lines(console) == []
        assert list(run.glob("*/*")) == []


def test_a_disk_that_fails_does_not_stop_a_training_that_has_a_checkpoint(run, writer, console, monkeypatch):
    monkeypatch.setattr(checkpoint_writer, "_RETRY", 0.0)
    save(writer, a_state(1), False)
    writer.finish()
    with monkeypatch.context() as patch:

        def fails(*args):
            raise OSError(errno.EIO, "Input/output error")

        patch.setattr(checkpoint_writer, "sync_all", fails)
        save(writer, a_state(2), False)
        settle(writer)
        writer.poll()
        (line,) = printed_lines(console)
        assert line.startswith(f"cannot write to {run}/last (Input/output error): see to the disk; training goes on")
        message = user_error(writer.finish)
        assert message.startswith("step 2 could not be saved, the checkpoint of step 1 is kept: cannot write to ")
    writer.finish()
    assert steps(run / "last") == [1, 2]


def test_a_full_disk_ends_a_training_whose_only_checkpoint_is_damaged(run, writer, monkeypatch):
    save(writer, a_state(1), False)
    writer.finish()
    flip_bit(run / "last" / "1" / "meta" / "metadata")
    monkeypatch.setattr(checkpoint_writer, "_SPACE_MARGIN", 1e15)
    save(writer, a_state(2), False)
    settle(writer)
    assert "is full" in user_error(writer.poll)


# --- a run's folder ------------------------------------------------------------------------


def test_a_folder_that_cannot_be_created_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    for run in (tmp_path / "file", tmp_path / "file" / "run"):
        assert "training.checkpoint_dir" in user_error(lambda run=run: lock_run(run).__enter__())


@pytest.fixture
def run_config(tmp_path, make_config) -> Callable[[str, str], Config]:
    """Makes the configuration of a run in these folders."""

    def make(checkpoints: str, logs: str) -> Config:
        config = make_config(training={"checkpoint_dir": str(tmp_path / checkpoints)})
        logging = dataclasses.replace(config.logging, log_dir=str(tmp_path / logs), run_name="run")
        return dataclasses.replace(config, logging=logging)

    return make


def test_both_folders_of_earlier_runs_are_moved_aside_to_one_name(tmp_path, run_config):
    config = run_config("checkpoints", "logs")
    run, logs = run_folders(config)
    assert (run, logs) == (tmp_path / "checkpoints" / "run", tmp_path / "logs" / "run")
    for i in range(3):
        for folder in (run, logs):
            folder.mkdir(parents=True)
            (folder / "which").write_text(str(i))
        if i == 1:
            shutil.rmtree(run)  # the name of the folder that is left is taken, too
        with lock_run(logs):  # as if by a training with another folder for its checkpoints
            assert f"another training is running in {logs}" in user_error(move_aside, config)
        assert logs.exists()
        assert run.exists() == (i != 1)
        assert move_aside(config) == f"run.{i + 1}"
        assert not run.exists()
        assert not logs.exists()
    for i in range(3):
        assert (logs.with_name(f"run.{i + 1}") / "which").read_text() == str(i)
    assert (run.with_name("run.3") / "which").read_text() == "2"
    assert not run.with_name("run.2").exists()


def test_checkpoints_and_logs_in_one_folder_are_moved_aside(tmp_path, run_config):
    (tmp_path / "run").mkdir()
    assert move_aside(run_config(".", ".")) == "run.1"
    assert [path.name for path in tmp_path.iterdir()] == ["run.1"]


def test_checkpoints_set_aside_as_damaged_are_kept_and_not_found(run, writer):
    for _ in range(2):
        save(writer, a_state(1), True)
        writer.finish()
        set_aside_damaged(run / "last" / "1")
    assert [p.name for p in (run / "last").iterdir()] == ["damaged-1"]
    for step in (2, 3, 4):
        save(writer, a_state(step), False)
    writer.finish()
    assert sorted(p.name for p in (run / "last").iterdir()) == ["3", "4", "damaged-1"]
    assert find(run / "last") == run / "last" / "4"


def test_a_copy_is_whole_or_missing_and_its_failure_an_error(run, writer, monkeypatch):
    save(writer, a_state(1), False)
    writer.finish()
    with monkeypatch.context() as patch:

        def fails(*args, **options):
            raise OSError(errno.EIO, "Input/output error")

        patch.setattr(shutil, "copystat", fails)
        message = user_error(copy_step, run / "last" / "1", run / "best" / "1")
        assert message.startswith(f"cannot copy {run}/last/1 to {run}/best/1: ")
        assert "Input/output error" in message
    assert list((run / "best").iterdir()) == []
    copy_step(run / "last" / "1", run / "best" / "1")
    assert is_of(run / "best" / "1", 1)
    assert "No such file or directory" in user_error(copy_step, run / "last" / "2", run / "best" / "2")
    assert hidden(run) == []
