"""A checkpoint whose meta is changed, and one whose change is killed."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import pytest
from rich.console import Console

from BC_training.common.errors import UserError
from BC_training.training.checkpoint import CHECKSUMS, FORMAT_VERSION, verify, write_checksums
from BC_training.training.checkpoint_edit import editing, update_meta
from BC_training.training.checkpoint_writer import CheckpointWriter, lock_run
from BC_training.training.train_state import TrainState


@pytest.fixture(scope="module")
def template(tmp_path_factory) -> Path:
    run = tmp_path_factory.mktemp("edit") / "run"
    state = TrainState(jnp.int32(7), {"w": jnp.ones(4)}, {"m": jnp.ones(2)}, {"mu": jnp.zeros(4)})
    with lock_run(run), CheckpointWriter(run, 1, Console(quiet=True)) as writer:
        writer.save(state, {"rules": "old", "epoch": 1}, True)
        writer.finish()
    return run


@pytest.fixture
def step(tmp_path, template) -> Path:
    shutil.copytree(template, tmp_path / "run")
    return tmp_path / "run" / "best" / "7"


def meta(step: Path) -> dict:
    return json.loads((step / "meta" / "metadata").read_text())


def test_it_is_whole_afterwards_and_nothing_else_has_changed(step, template):
    before = meta(step)
    files = sorted(p.relative_to(step) for p in step.rglob("*"))
    for rules in ("new", "newer"):
        with editing(step):
            update_meta(step, {"rules": rules})
        verify(step)
        assert meta(step) == before | {"rules": rules}
    assert sorted(p.relative_to(step) for p in step.rglob("*")) == files
    assert set(json.loads((step / CHECKSUMS).read_text())) == {"model", "optimizer", "meta"}
    for file in (*step.rglob("model/**/*"), *step.rglob("optimizer/**/*")):
        if file.is_file():
            assert file.read_bytes() == (template / "best/7" / file.relative_to(step)).read_bytes()
    with editing(step):
        (step / "meta" / "metadata").write_text(json.dumps(before))
    with pytest.raises(UserError, match="damaged checkpoint"):  # an older state is not taken for this one
        verify(step)


KILLED = """
import json, os, shutil, signal, sys
from pathlib import Path
from BC_training.training import checkpoint_edit
from BC_training.training.checkpoint import verify

template, folder = Path(sys.argv[1]), Path(sys.argv[2])
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

        os.fsync, Path.replace, Path.unlink = map(mortal, (os.fsync, Path.replace, Path.unlink))
        checkpoint_edit.open = mortal(open)
        with checkpoint_edit.editing(step):
            checkpoint_edit.update_meta(step, {"rules": "new"})
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    verify(step)
    found = json.loads((step / "meta" / "metadata").read_text())["rules"]
    with checkpoint_edit.editing(step):  # and it can be changed again
        checkpoint_edit.update_meta(step, {"rules": "again"})
    verify(step)
    left = sorted(p.name for p in step.iterdir())
    outcomes.append([code, found, left])
    if code == 0:
        break
print(json.dumps(outcomes))
"""


def test_killed_at_any_moment_it_is_as_before_or_as_after(step, tmp_path):
    command = [sys.executable, "-W", "ignore", "-c", KILLED, str(step), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    outcomes = json.loads(done.stdout)
    codes, found, left = zip(*outcomes, strict=True)
    assert codes == (-9,) * (len(codes) - 1) + (0,)
    assert len(codes) >= 12  # opened, flushed, replaced and its folder flushed, three times
    assert found == tuple(sorted(found, reverse=True))  # "old" up to a moment, then "new"
    assert {"old", "new"} == set(found)
    assert {tuple(names) for names in left} == {tuple(sorted(p.name for p in step.iterdir()))}


def test_a_damaged_one_is_not_made_to_look_whole(step):
    content = (step / "meta" / "metadata").read_text()
    (step / "meta" / "metadata").write_text(content.replace("old", "odd"))
    with pytest.raises(UserError, match="damaged checkpoint"), editing(step):
        pass


def test_a_run_that_is_training_is_left_alone(step):
    code = (
        "import sys; from pathlib import Path; from BC_training.training.checkpoint_edit import editing\n"
        "from BC_training.common.errors import UserError\n"
        "try:\n    with editing(Path(sys.argv[1])): pass\nexcept UserError as error: print(error)"
    )
    with lock_run(step.parent.parent):
        done = subprocess.run([sys.executable, "-c", code, str(step)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(f"another training is running in {step.parent.parent}")


def test_a_copy_outside_a_run_can_be_changed(step, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    leftover = tmp_path / "x" / ".partial-not-of-a-run"
    leftover.mkdir(parents=True)
    copy = Path(shutil.copytree(step, tmp_path / "elsewhere" / "mine"))
    with editing(copy):
        update_meta(copy, {"rules": "new"})
    verify(copy)
    assert leftover.is_dir()


def test_one_without_checksums_is_refused(step):
    (step / "meta" / "metadata").write_text(json.dumps(meta(step) | {"format_version": 1}))
    (step / CHECKSUMS).unlink()
    with pytest.raises(UserError, match="of an earlier version, without checksums"), editing(step):
        pass


def test_an_older_format_becomes_this_one(step):
    """A program that knows nothing of what was changed then refuses it."""
    (step / "meta" / "metadata").write_text(json.dumps(meta(step) | {"format_version": 2}))
    write_checksums(step)
    with editing(step):
        update_meta(step, {"rules": "new"})
    assert meta(step)["format_version"] == FORMAT_VERSION
    verify(step)
