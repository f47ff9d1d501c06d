"""Locks: one process at a time, whatever becomes of those that hold and wait."""

import subprocess
import sys
import threading
import time

import pytest

from BC_training.common.errors import UserError
from BC_training.common.files import locked

HOLD = "import sys; from pathlib import Path; from BC_training.common.files import locked; "


def test_a_lock_keeps_others_out_and_leaves_no_file(tmp_path):
    file = tmp_path / "lock"
    with locked(file):
        with pytest.raises(UserError, match="taken"), locked(file, "taken"):
            pass
        assert file.exists()
    assert list(tmp_path.iterdir()) == []
    with locked(file, "taken"):
        pass


def test_a_lock_ends_with_the_process_that_is_killed(tmp_path):
    file = tmp_path / "lock"
    code = f"{HOLD}\nwith locked(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    process = subprocess.Popen([sys.executable, "-c", code, file], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(UserError, match="taken"), locked(file, "taken"):
        pass
    process.kill()
    process.wait()
    with locked(file, "taken"):
        pass
    process.stdin.close()
    process.stdout.close()


def test_who_waits_gets_the_lock_alone(tmp_path):
    """Also where the file goes, with the lock, while several wait for it."""
    file, inside, most = tmp_path / "lock", [], []

    def work():
        for _ in range(10):
            with locked(file):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.001)
                inside.pop()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(most) == 40
    assert max(most) == 1


def test_a_place_that_cannot_be_locked_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=r"cannot lock .*file: .*; choose another folder"),
        locked(tmp_path / "file/lock"),
    ):
        pass
