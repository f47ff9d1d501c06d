import errno
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from BC_training.common.errors import UserError, unknown
from BC_training.common.files import disk_full_is_user_error, require_writable


def test_unknown_names_the_nearest_and_the_whole_list():
    message = str(unknown("action", "atack", ["jump", "attack", "dodge"], "see the dataset"))
    assert message == "unknown action 'atack'; did you mean 'attack'? (known: attack, dodge, jump); see the dataset"


def test_unknown_without_anything_near():
    assert "did you mean" not in str(unknown("action", "zzz", ["jump", "attack"]))
    assert "known: none" in str(unknown("action", "zzz", []))


def full_disk() -> OSError:
    return OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    "error",
    [full_disk(), OSError(errno.EDQUOT, "quota"), ValueError("RESOURCE_EXHAUSTED: ... No space left on device ...")],
)
def test_a_full_disk_is_a_user_error(error):
    with (
        pytest.raises(UserError, match="the disk that holds data is full") as caught,
        disk_full_is_user_error(Path("data")),
    ):
        raise error
    assert "\n" not in str(caught.value)
    assert caught.value.__cause__ is error


def test_a_full_disk_behind_another_error():
    def write():
        try:
            raise full_disk()
        except OSError as error:
            raise ValueError("could not save") from error

    with pytest.raises(UserError, match="is full"), disk_full_is_user_error(Path("data")):
        write()


def test_other_errors_pass_through():
    with pytest.raises(OSError, match="denied"), disk_full_is_user_error(Path("data")):
        raise OSError(errno.EACCES, "denied")
    with disk_full_is_user_error(Path("data")):
        pass


def test_require_writable_leaves_no_trace(tmp_path):
    require_writable(tmp_path / "new.json")
    assert not (tmp_path / "new.json").exists()
    (tmp_path / "old.json").write_text("kept")
    require_writable(tmp_path / "old.json")
    assert (tmp_path / "old.json").read_text() == "kept"
    (tmp_path / "link.json").symlink_to("later.json")
    require_writable(tmp_path / "link.json")
    assert (tmp_path / "link.json").is_symlink()
    assert not (tmp_path / "later.json").exists()


def test_require_writable_refuses(tmp_path):
    for file in (tmp_path / "nowhere" / "x.json", tmp_path, tmp_path / ("x" * 300)):
        with pytest.raises(UserError, match="cannot write") as caught:
            require_writable(file)
        assert "\n" not in str(caught.value)


@given(st.text(st.characters()))
def test_a_message_is_one_line_that_can_be_printed_whatever_a_name_holds(name):
    line = str(UserError(f"no action '{name}'"))
    assert len(line.splitlines()) == 1
    line.encode()
    assert line.isprintable()
    if name.isprintable():
        assert line == f"no action '{name}'"
