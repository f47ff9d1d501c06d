import errno
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from dataset_files import user_error

from BC_training.common.errors import UserError
from BC_training.common.files import disk_full_is_user_error, locked, require_writable

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


def test_a_lock_is_held_by_one_at_a_time(tmp_path):
    """The file is removed with the lock while several wait for it."""
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


def full_disk() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


def full_disk_behind_another_error() -> ValueError:
    error = ValueError("could not save")
    error.__cause__ = full_disk()
    return error


@pytest.mark.parametrize(
    "error",
    [
        full_disk(),
        full_disk_behind_another_error(),
        OSError(errno.EDQUOT, "quota"),
        ValueError("RESOURCE_EXHAUSTED: ... No space left on device ..."),
    ],
)
def test_a_full_disk_is_a_user_error(error):
    with (
        pytest.raises(UserError, match="the disk that holds data is full") as caught,
        disk_full_is_user_error(Path("data")),
    ):
        raise error
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is error


def test_an_error_from_another_cause_is_not_changed():
    with pytest.raises(OSError, match="denied"), disk_full_is_user_error(Path("data")):
        raise OSError(errno.EACCES, "denied")
    with disk_full_is_user_error(Path("data")):
        pass


def test_a_file_that_can_be_written_is_left_as_it_is(tmp_path):
    require_writable(tmp_path / "new.json")
    assert not (tmp_path / "new.json").exists()
    (tmp_path / "old.json").write_text("kept")
    require_writable(tmp_path / "old.json")
    assert (tmp_path / "old.json").read_text() == "kept"
    (tmp_path / "link.json").symlink_to("later.json")
    require_writable(tmp_path / "link.json")
    assert (tmp_path / "link.json").is_symlink()
    assert not (tmp_path / "later.json").exists()


def test_a_file_that_cannot_be_written_is_refused(tmp_path):
    for file in (tmp_path / "nowhere" / "x.json", tmp_path, tmp_path / ("x" * 300)):
        assert "cannot write" in user_error(require_writable, file)
