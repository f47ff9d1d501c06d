"""CSV files are read in every dialect, or refused with the line."""

import pytest
from dataset_files import user_error
from hypothesis import given, settings
from hypothesis import strategies as st

from BC_training.convert.sessions.csv_files import open_csv, timestamp
from BC_training.convert.sessions.tables import memory_columns, read_memory

NEEDED = ("timestamp_us", "key_or_button")


@settings(max_examples=40)
@given(
    rows=st.lists(st.tuples(st.floats(0, 1e9, width=32), st.sampled_from(["W", "SPACE", "é", "a b"])), max_size=5),
    delimiter=st.sampled_from(",;\t|"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"]),
    newline=st.sampled_from(["\n", "\r\n"]),
    quoted=st.booleans(),
    trailing=st.sampled_from(["none", "rows", "all"]),
    decimal_comma=st.booleans(),
    padding=st.sampled_from(["", " "]),
    separator_line=st.booleans(),
)
def test_every_dialect_gives_the_same_rows(
    tmp_path_factory, rows, delimiter, encoding, newline, quoted, trailing, decimal_comma, padding, separator_line
):
    path = tmp_path_factory.mktemp("csv") / "x.csv"
    comma = decimal_comma and delimiter != ","
    lines = [list(NEEDED), *([f"{time:.3f}".replace(".", "," if comma else "."), key] for time, key in rows)]
    text = f"sep={delimiter}{newline}" if separator_line else ""
    for i, line in enumerate(lines):
        cells = [f'"{cell}"' if quoted else cell + padding for cell in line]
        text += delimiter.join(cells + [""] * (trailing == "all" or (trailing == "rows" and i > 0))) + newline
    path.write_bytes(text.encode(encoding))
    header, read = open_csv(path, NEEDED)
    assert header == list(NEEDED)
    first = 2 + separator_line
    assert list(read) == [(first + i, [f"{time:.3f}", key]) for i, (time, key) in enumerate(rows)]


@pytest.mark.parametrize(("text", "parts"), [
    ("timestamp_us,health,\n0,1,2\n", ("line 2: 3 values for 2 columns", "name all in the header")),
    ("timestamp_us,health\n0\n", ("line 2: 1 values for 2 columns", "complete")),
    ("timestamp_us,health,health\n0,1,2\n", ("the column health twice",)),
    ("timestamp_us;health\n0;1,5\n1;1.5\n", ("line 3: decimal commas and points are mixed",)),
    ("timestamp_us;health\n1,25E+06;1\n", ("line 2", "has lost digits")),
    ("timestamp_us,health\n1.7e9,1\n", ("line 2", "has lost digits")),
    ("timestamp_ms,health\n0,1\n", ("it has timestamp_ms, health", "rename timestamp_ms", "--time-unit")),
    ("timestamp_us health\n0 1\n", ("separate the columns by commas",)),
    ("timestamp_us,health\n0,1\n" + "\0" * 600, ("line 3 holds zero bytes", "remove them")),
    ('timestamp_us,health\n0,1\n1,"\n2,1\n3,"\n', ("a quotation mark joins the lines up to 5", 'written """"')),
    ('timestamp_us,health\n0,1\n1,"\n', ("after line 2: not a CSV", "a quotation mark alone")),
])  # fmt: skip
def test_a_fault_is_refused_with_its_line(tmp_path, text, parts):
    path = tmp_path / "m.csv"
    path.write_text(text)
    message = user_error(lambda: read_memory(path, memory_columns(path)))
    assert not [part for part in (str(path), *parts) if part not in message], message


@pytest.mark.parametrize("text", ["1250400", "1250400.5", "1.2504005e+06", "1e+16", "1.25040000E6", "0"])
def test_times_with_all_their_digits_are_read(tmp_path, text):
    assert timestamp(tmp_path, 2, text, []) == float(text)


def test_comments_may_come_before_a_header_in_any_case(tmp_path):
    path = tmp_path / "m.csv"
    path.write_text("# a recorder, version 1\n#\nTimestamp_US ,Health,health\n0,1,2\n")
    assert memory_columns(path) == ("Health", "health")
    assert read_memory(path, ("Health", "health")).values.tolist() == [[1, 2]]
