from hypothesis import given
from hypothesis import strategies as st

from BC_training.common.errors import UserError, first_line, unknown


def test_an_unknown_name_gets_the_nearest_and_the_whole_list():
    message = str(unknown("action", "atack", ["jump", "attack", "dodge"], "see the dataset"))
    assert message == "unknown action 'atack'; did you mean 'attack'? (known: attack, dodge, jump); see the dataset"
    assert "did you mean" not in str(unknown("action", "zzz", ["jump", "attack"]))
    assert "known: none" in str(unknown("action", "zzz", []))


@given(st.text(st.characters()))
def test_a_message_is_one_line_that_can_be_printed_whatever_a_name_holds(name):
    line = str(UserError(f"no action '{name}'"))
    assert len(line.splitlines()) == 1
    line.encode()
    assert line.isprintable()
    if name.isprintable():
        assert line == f"no action '{name}'"


def test_the_first_line_of_an_error_has_no_notes_of_tensorstore():
    error = ValueError("NOT_FOUND: chunk is missing [tensorstore_spec='{}'] [source locations='x.cc:1']\nmore")
    assert first_line(error) == "NOT_FOUND: chunk is missing"
    assert first_line(KeyError()) == "KeyError"
