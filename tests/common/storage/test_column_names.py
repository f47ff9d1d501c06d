import contextlib

import pytest
import zarr
from dataset_files import user_error
from hypothesis import given, settings
from hypothesis import strategies as st

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.common.storage.column_names import names_fault, proposed
from BC_training.common.storage.writer import Names, recording

BAD = {
    "twice": (["jump", "fire", "jump"], "'jump' twice, in columns 0 and 2"),
    "numbers": ([0, 1, 2], "has 0 in column 0, which is not text"),
    "null": (["jump", None, "fire"], "has None in column 1, which is not text"),
    "empty": (["jump", "", "fire"], "has '' in column 1, which is empty"),
    "spaces": (["jump", "  ", "fire"], "which is empty"),
    "lists": ([["jump"], "fire", "run"], "which is not text"),
    "long": (["jump" * 99, "fire", "run"], "longer than 200 characters"),
    "control characters": (["jump", "fi\nre", "run"], "has a control character"),
    "half a character": (["jump", "\ud800", "run"], "has a control character"),
    "a number": (3, "is 3, not a list"),
    "text": ("jump,fire,run", "is 'jump,fire,run', not a list"),
    "a table": ({"jump": 0}, "not a list"),
    "true": (True, "is True, not a list"),
    "none": ([], "is an empty list, not a list"),
}


EMPTY = ("attributes", "none")  # a dataset may have no state values


@pytest.mark.parametrize(
    ("label", "bad"), [(label, bad) for label in ("keys", "attributes") for bad in BAD if (label, bad) != EMPTY]
)
def test_bad_names_are_refused_and_the_proposed_line_of_python_corrects_them(tmp_path, make_dataset, label, bad):
    path, (names, reason) = tmp_path / "x.zarr", BAD[bad]
    zarr_format = 2 if bad == "twice" else 3
    make_dataset(path, [1], actions=3, state=3, zarr_format=zarr_format, root_attributes={label: names})
    message = user_error(ZarrGameplayDataset, path)
    assert f"'{label}'" in message
    assert reason in message
    exec(message.split("in Python: ")[1], {})
    with contextlib.suppress(UserError):  # the number of names is known only from a list
        dataset = ZarrGameplayDataset(path)
        assert len(dataset.action_names) == len(dataset.state_names) == 3
    assert names_fault(zarr.open_group(path, mode="r").attrs, "x") is None


@settings(max_examples=25)
@given(st.one_of(st.none(), st.integers(), st.text(), st.lists(st.none() | st.integers() | st.text(max_size=3))))
def test_proposed_names_always_differ(names):
    assert names_fault({"keys": proposed(names) or ["a"], "attributes": proposed(names)}, "x") is None


@given(st.lists(st.text("abc", min_size=1), min_size=1, unique=True))
def test_good_names_are_kept(names):
    assert names_fault({"keys": names, "attributes": names}, "x") is None
    assert proposed(names) == names


def test_a_dataset_is_not_made_with_names_that_would_be_refused(tmp_path):
    with (
        pytest.raises(UserError, match="'attributes' has 'hp' twice"),
        recording(tmp_path / "x.zarr", Names(("jump",), (), ("hp", "hp"))),
    ):
        pass
    assert list(tmp_path.iterdir()) == []
