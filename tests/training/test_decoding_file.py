"""Changes the decoding of checkpoints, also in a process that is killed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest
from untrained import CONFIG, INPUTS, save_run

from BC_training.common.decode import Decoding
from BC_training.common.errors import UserError
from BC_training.training.checkpoint import read, verify
from BC_training.training.decoding_file import TunedOn, changing, read_decoding, write_decoding
from BC_training.training.run_folder import lock_run
from BC_training.training.train_state import TrainState

NEW = Decoding({"a0": 0.25, "a1": 0.5, "a2": 0.75}, 2.0, 0.125, (("a2", "a0"),))


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    state = TrainState(jnp.int32(7), {"w": jnp.ones(4)}, {"m": jnp.ones(2)}, {"mu": jnp.zeros(4)})
    return save_run(tmp_path_factory.mktemp("edit") / "run", CONFIG, INPUTS, state=state)


@pytest.fixture
def step(tmp_path, template) -> Path:
    shutil.copytree(template, tmp_path / "run")
    return tmp_path / "run" / "best" / "7"


def contents(step: Path) -> dict[Path, bytes]:
    return {file.relative_to(step): file.read_bytes() for file in step.rglob("*") if file.is_file()}


@pytest.mark.parametrize("tuned_on", [None, TunedOn(("episode_2", "episode_10"), "abc")])
def test_a_decoding_is_read_as_written_and_no_other_file_changes(step, tuned_on):
    before = contents(step)
    with changing(step):
        write_decoding(step, NEW, tuned_on)
    verify(step)
    assert read_decoding(step) == (NEW, tuned_on)
    assert (read(step).decoding, read(step).tuned_on) == (NEW, tuned_on)
    assert {file for file, content in contents(step).items() if before.get(file) != content} == {Path("decoding.json")}


def test_a_file_edited_by_hand_is_damaged(step):
    file = step / "decoding.json"
    file.write_text(file.read_text().replace("0.5", "0.4"))
    for reading in (verify, read):
        with pytest.raises(UserError, match=r"damaged checkpoint \(decoding.json: it has changed\)"):
            reading(step)


KILLED = """
import json, os, shutil, signal, sys
from pathlib import Path
from BC_training.common.decode import Decoding
from BC_training.training.checkpoint import verify
from BC_training.training.decoding_file import read_decoding, write_decoding

template, folder = Path(sys.argv[1]), Path(sys.argv[2])
new = Decoding({"a0": 0.25, "a1": 0.5, "a2": 0.75})
outcomes = []
for last in range(100):  # the system call that the process is killed before
    step = folder / str(last)
    shutil.copytree(template, step)
    child = os.fork()
    if not child:
        calls = 0

        def mortal(call):
            def called(*args, **options):
                global calls
                if calls == last:
                    os.kill(os.getpid(), signal.SIGKILL)
                calls += 1
                return call(*args, **options)
            return called

        os.fsync, Path.replace, Path.write_text = map(mortal, (os.fsync, Path.replace, Path.write_text))
        write_decoding(step, new)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    verify(step)
    outcomes.append([code, read_decoding(step)[0] == new])
    write_decoding(step, new)  # and it can be changed again
    assert sorted(p.name for p in step.iterdir()) == sorted(p.name for p in template.iterdir())
    if code == 0:
        break
print(json.dumps(outcomes))
"""


def test_a_file_whose_writer_is_killed_is_as_before_or_as_after(step, tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", KILLED, str(step), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    codes, is_new = zip(*json.loads(done.stdout), strict=True)
    assert codes == (-9,) * (len(codes) - 1) + (0,)
    assert len(codes) >= 5  # written, replaced, and the file and its folder flushed
    assert is_new == tuple(sorted(is_new))
    assert set(is_new) == {False, True}


def test_the_decoding_of_a_run_in_training_cannot_be_changed(step):
    run = step.parent.parent
    with lock_run(run), pytest.raises(UserError, match=f"another training is running in {run}"), changing(step):
        pass


def test_a_copy_outside_a_run_can_be_changed(step, tmp_path):
    leftover = tmp_path / "x" / ".partial-not-of-a-run"
    leftover.mkdir(parents=True)
    copy = Path(shutil.copytree(step, tmp_path / "elsewhere" / "mine"))
    with changing(copy):
        write_decoding(copy, NEW)
    verify(copy)
    assert leftover.is_dir()
