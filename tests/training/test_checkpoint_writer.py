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
from rich.console import Console
from untrained import save

from BC_training.common.errors import UserError
from BC_training.training import checkpoint_writer
from BC_training.training.checkpoint import find, read_state, verify
from BC_training.training.checkpoint_writer import CheckpointWriter
from BC_training.training.run_folder import copy_step, lock_run, move_aside, newest, run_folders, set_aside_damaged
from BC_training.training.train_state import TrainState


def a_state(step: int, size: int = 8) -> TrainState:
    """Arrays that tell the step they are of."""
    draw = np.random.default_rng(step).normal
    return TrainState(
        jnp.int32(step),
        {"w": jnp.asarray(draw(size=(size, 4)), jnp.float32)},
        {"mean": jnp.asarray(draw(size=4), jnp.float32)},
        {"mu": jnp.asarray(draw(size=(size, 4)), jnp.float32), "count": jnp.int32(step)},
    )


def is_of(folder: Path, step: int) -> bool:
    """Whether a checkpoint is whole and holds what ``a_state(step)`` is."""
    verify(folder)
    found = read_state(folder, a_state(0))
    return jax.tree.all(jax.tree.map(lambda x, y: bool(np.array_equal(x, y)), found, a_state(step)))


def steps(folder: Path) -> list[int]:
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def hidden(run: Path) -> list[str]:
    return [p.name for p in run.rglob(".*") if p.name != ".lock"]


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def error_of(function: Callable[..., object], *args: object) -> str:
    """The message of the UserError that ``function`` raises; it must be one line."""
    with pytest.raises(UserError) as caught:
        function(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


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


def test_the_last_are_kept_and_so_is_the_best(run, writer, console):
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


def test_a_run_that_was_never_evaluated_is_found_by_its_last(run, writer):
    for step in (9, 10):
        save(writer, a_state(step), False)
    writer.finish()
    assert find(run) == run / "last" / "10"


def test_what_is_saved_is_what_was_there_at_the_call(run, writer, monkeypatch):
    """The next step donates the buffers, and a later save changes what ``meta`` was made of."""
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


def test_the_best_is_written_before_the_last(run, writer, monkeypatch):
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


def test_the_same_step_again_replaces_it(run, writer):
    for epoch in (0, 1):
        save(writer, a_state(5), epoch == 1, epoch=epoch)
        writer.finish()
    assert json.loads((run / "last" / "5" / "meta" / "metadata").read_text())["epoch"] == 1
    assert is_of(run / "last" / "5", 5)
    assert (steps(run / "best"), steps(run / "last"), hidden(run)) == ([5], [5], [])


def test_a_run_can_be_reopened_and_goes_on(run, writer, console):
    save(writer, a_state(1), True)
    writer.finish()
    with CheckpointWriter(run, 2, console) as again:
        for step in (2, 3):
            save(again, a_state(step), False)
        again.finish()
    assert (steps(run / "best"), steps(run / "last")) == ([1], [2, 3])


@pytest.mark.parametrize("step", [1, 2])
def test_what_is_damaged_while_written_does_not_cost_the_good_one(run, console, monkeypatch, step):
    """With one kept, and for the same step and a later one."""
    with CheckpointWriter(run, 1, console) as writer:
        save(writer, a_state(1), True)
        writer.finish()
        sync = checkpoint_writer.sync

        def damage(path, deep=True):
            if path.name.startswith(".partial-"):
                flip(path / "meta" / "metadata")
            sync(path, deep)

        with monkeypatch.context() as patch:
            patch.setattr(checkpoint_writer, "sync", damage)
            save(writer, a_state(step), False)
            with pytest.raises(UserError):
                writer.finish()
        assert steps(run / "last") == steps(run / "best") == [1]
        assert is_of(run / "last" / "1", 1)
        assert hidden(run) == []


# --- what a killed one leaves --------------------------------------------------------------


def test_leftovers_are_removed_and_what_was_replaced_comes_back(tmp_path, console):
    run = tmp_path / "run"
    with lock_run(run), CheckpointWriter(run, 2, console) as writer:
        for step in (1, 2):
            save(writer, a_state(step), True)
        writer.finish()
    shutil.copytree(run / "last" / "2", run / "last" / ".partial-3")
    shutil.copytree(run / "last" / "2", run / "last" / ".partial-removed")
    shutil.copytree(run / "last" / "1", run / "last" / ".replaced-1")  # 1 is there: the newer of both
    (run / "best" / "2").rename(run / "best" / ".replaced-2")  # killed between the two renames
    flip(run / "last" / ".replaced-1" / "meta" / "metadata")
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
    """And until then no other process gets at the run."""
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

# Orbax leaves the writes behind that it had not finished, and they complain when they are collected.
complains = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


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


@complains
@pytest.mark.parametrize("leave", [0, 100_000, 300_000])
def test_a_full_disk_stops_no_training_that_has_a_checkpoint(small_disk, console, monkeypatch, leave):
    monkeypatch.setattr(checkpoint_writer, "_RETRY", 0.0)
    monkeypatch.setattr(checkpoint_writer, "_SPACE_MARGIN", 0.0)  # have the writing itself meet it
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
        message = error_of(writer.finish)
        assert "step 3, 4 could not be saved" in message
        assert "step 1 is kept" in message
        filler.unlink()
        for _ in range(2):
            writer.poll()
            settle(writer)
        assert printed_lines(console)[1:] == ["checkpoints can be saved again: the checkpoint of step 4 is kept"]
        writer.finish()
    assert (steps(run / "best"), steps(run / "last"), hidden(run)) == ([3], [4], [])
    assert read_state(run / "best" / "3", a_state(0, SIZE)).params["w"].tobytes() == leaf(3)
    assert read_state(run / "last" / "4", a_state(0, SIZE)).params["w"].tobytes() == leaf(4)


def settle(writer: CheckpointWriter) -> None:
    """Waits for the thread, and leaves it to the writer to find out what became of it."""
    if writer._writing is not None:
        writer._writing.exception()


def leaf(step: int) -> bytes:
    return np.asarray(a_state(step, SIZE).params["w"]).tobytes()


def test_a_disk_that_is_too_small_for_the_first_checkpoint_ends_it(small_disk, console):
    run = small_disk / "run"
    with lock_run(run), CheckpointWriter(run, 1, console) as writer:
        fill(small_disk, 400_000)
        save(writer, a_state(1, SIZE), True)
        settle(writer)
        message = error_of(writer.poll)
        assert "is full" in message
        assert "0 MB free, a checkpoint needs 1 MB" in message
        assert printed_lines(console) == []
        assert list(run.glob("*/*")) == []


@complains
def test_a_disk_full_while_the_first_is_written_ends_it(small_disk, console, monkeypatch):
    monkeypatch.setattr(checkpoint_writer, "_SPACE_MARGIN", 0.0)
    run = small_disk / "run"
    with lock_run(run), CheckpointWriter(run, 1, console) as writer:
        fill(small_disk, 400_000)
        save(writer, a_state(1, SIZE), True)
        assert "is full" in error_of(save, writer, a_state(2, SIZE), False)
        assert list(run.glob("*/*")) == []


def test_a_disk_that_fails_stops_no_training_that_has_a_checkpoint(run, writer, console, monkeypatch):
    monkeypatch.setattr(checkpoint_writer, "_RETRY", 0.0)
    save(writer, a_state(1), False)
    writer.finish()
    with monkeypatch.context() as patch:

        def fails(*args):
            raise OSError(errno.EIO, "Input/output error")

        patch.setattr(checkpoint_writer, "sync", fails)
        save(writer, a_state(2), False)
        settle(writer)
        writer.poll()
        (line,) = printed_lines(console)
        assert line.startswith(f"cannot write to {run}/last (Input/output error): see to the disk; training goes on")
        message = error_of(writer.finish)
        assert message.startswith("step 2 could not be saved, the checkpoint of step 1 is kept: cannot write to ")
    writer.finish()
    assert steps(run / "last") == [1, 2]


def test_a_damaged_checkpoint_does_not_count_as_one_to_go_on_with(run, writer, monkeypatch):
    save(writer, a_state(1), False)
    writer.finish()
    flip(run / "last" / "1" / "meta" / "metadata")
    monkeypatch.setattr(checkpoint_writer, "_SPACE_MARGIN", 1e15)
    save(writer, a_state(2), False)
    settle(writer)
    assert "is full" in error_of(writer.poll)


# --- a run's folder ------------------------------------------------------------------------


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    for run in (tmp_path / "file", tmp_path / "file" / "run"):
        assert "training.checkpoint_dir" in error_of(lambda run=run: lock_run(run).__enter__())


def test_earlier_runs_are_moved_aside_to_one_name(tmp_path, make_config):
    config = make_config(training={"checkpoint_dir": str(tmp_path / "checkpoints")})
    logging = dataclasses.replace(config.logging, log_dir=str(tmp_path / "logs"), run_name="run")
    config = dataclasses.replace(config, logging=logging)
    run, logs = run_folders(config)
    assert (run, logs) == (tmp_path / "checkpoints" / "run", tmp_path / "logs" / "run")
    for i in range(3):
        for folder in (run, logs):
            folder.mkdir(parents=True)
            (folder / "which").write_text(str(i))
        if i == 1:
            shutil.rmtree(run)  # half of a run has a name too
        assert move_aside(config) == f"run.{i + 1}"
        assert not run.exists()
        assert not logs.exists()
    for i in range(3):
        assert (logs.with_name(f"run.{i + 1}") / "which").read_text() == str(i)
    assert (run.with_name("run.3") / "which").read_text() == "2"
    assert not run.with_name("run.2").exists()


def test_neither_folder_of_a_training_is_moved_aside(tmp_path, make_config):
    config = make_config(training={"checkpoint_dir": str(tmp_path / "checkpoints")})
    logging = dataclasses.replace(config.logging, log_dir=str(tmp_path / "logs"), run_name="run")
    config = dataclasses.replace(config, logging=logging)
    run, logs = run_folders(config)
    run.mkdir(parents=True)
    with lock_run(logs):  # of a training that has another folder for its checkpoints
        assert f"another training is running in {logs}" in error_of(lambda: move_aside(config))
    assert run.exists()
    assert logs.exists()


def test_checkpoints_and_logs_in_one_folder_are_moved_aside(tmp_path, make_config):
    config = make_config(training={"checkpoint_dir": str(tmp_path)})
    config = dataclasses.replace(
        config, logging=dataclasses.replace(config.logging, log_dir=str(tmp_path), run_name="run")
    )
    (tmp_path / "run").mkdir()
    assert move_aside(config) == "run.1"
    assert [path.name for path in tmp_path.iterdir()] == ["run.1"]


def test_damaged_ones_are_kept_out_of_the_way(run, writer):
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


def test_a_copy_is_whole_or_not_there(run, writer, monkeypatch):
    save(writer, a_state(1), False)
    writer.finish()
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "copystat", lambda *_, **__: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            copy_step(run / "last" / "1", run / "best" / "1")
    assert not (run / "best" / "1").exists()
    copy_step(run / "last" / "1", run / "best" / "1")
    assert is_of(run / "best" / "1", 1)
    assert hidden(run) == []


def test_a_copy_that_fails_says_so(run, writer, monkeypatch):
    save(writer, a_state(1), False)
    writer.finish()
    target = run / "best" / "1"
    message = error_of(lambda: copy_step(run / "last" / "2", target))
    assert message.startswith(f"cannot copy {run}/last/2 to {target}: No such file or directory")
    assert hidden(run) == []
