"""Damaged datasets are read as they were written, or refused in one line, by training and by validate alike."""

import io
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import WEIRD, change_file, require_one_line
from rich.console import Console

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.reports.dataset.analyze import analyze
from BC_training.validate.validate import validate

QUIET = Console(file=io.StringIO())
ZARR_VALUES = ["a0", "24", "group", "array", "\ud800", "\x00", "uint8", "<f8", "|O", "numcodecs.pickle", "lz4"]
SIZES = [10**400, 24.0, [[]], [10**15, 3, 24, 32], [4, -3, 24, 32], [1.0, 3.0], {"a": {}}, ["a0"] * 7]
VALUES = WEIRD | st.sampled_from([*ZARR_VALUES, *SIZES])
NESTED = '{"zarr_format": 3, "attributes": ' + "[" * 90_000 + "]" * 90_000 + "}"


def read(path: Path, validate_episodes: bool = False) -> list[tuple]:
    """Everything a training reads."""
    dataset = ZarrGameplayDataset(path, validate_episodes=validate_episodes)
    dataset.load_labels()
    return [
        (dataset.frames(e, range(info.length)), dataset.actions(e), dataset.state(e) if dataset.state_names else None)
        for e, info in enumerate(dataset.episodes)
    ]


def refusal(function: Any, *args: Any, **options: Any) -> UserError | None:
    """The UserError that ``function`` ends with, which must be one line."""
    try:
        function(*args, **options)
    except UserError as error:
        require_one_line(error)
        return error
    return None


def errors(path: Path) -> list[str]:
    findings = validate(path, QUIET, workers=1)
    assert all(len(f.message.splitlines()) == 1 for f in findings), findings
    return [f.kind for f in findings if f.severity == "error"]


@pytest.fixture(scope="module")
def originals(tmp_path_factory, make_dataset) -> Path:
    """Three small datasets: zarr v2, v3, and v3 with consolidated metadata."""
    folder = tmp_path_factory.mktemp("originals")
    for name, zarr_format in (("v2", 2), ("v3", 3), ("v3_consolidated", 3)):
        make_dataset(folder / name, [3, 4], size=(4, 4), actions=2, state=2, zarr_format=zarr_format)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for group in ("episode_0", "episode_1", ""):
            zarr.consolidate_metadata(folder / "v3_consolidated" / group)
    return folder


def dataset_property(examples: int):
    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def test(originals, tmp_path_factory, data):
        name = data.draw(st.sampled_from(["v2", "v3", "v3_consolidated"]))
        path = tmp_path_factory.mktemp("fuzzed") / "x.zarr"
        shutil.copytree(originals / name, path)
        files = sorted(file for file in path.rglob("*") if file.is_file())
        metadata = [file for file in files if file.name == "zarr.json" or file.name.startswith(".z")]
        changed = data.draw(st.lists(st.sampled_from(metadata) | st.sampled_from(files), min_size=1, max_size=3))
        for file in dict.fromkeys(changed):
            kind = data.draw(st.integers(0, 19))
            if kind <= 1 and file not in metadata:
                file.unlink()
            elif kind == 0:
                file.write_text(NESTED)
            else:
                change_file(data, file, VALUES)
        refused = refusal(read, path)
        # The Blosc chunks of v2 have no checksum; and other metadata may be that of another valid dataset.
        if refused is None and name != "v2" and not set(changed) & set(metadata):
            for one, other in zip(read(path), read(originals / name), strict=True):
                for values, expected in zip(one, other, strict=True):
                    np.testing.assert_array_equal(values, expected)
        refusal(read, path, validate_episodes=True)
        if refusal(errors, path) is None and refused is not None:
            assert errors(path), refused
        out = path.with_name("repaired.zarr")
        refusal(validate, path, QUIET, workers=1, repair_to=out, json_file=path.with_name("x.json"))
        if out.exists():
            assert not errors(out)
        refusal(analyze, path, QUIET, out=path.with_name("x.html"))
        shutil.rmtree(path.parent)

    return test


test_a_damaged_dataset_is_read_right_or_refused_in_one_line = dataset_property(30)
test_damaged_datasets_by_the_thousand = pytest.mark.slow(dataset_property(3000))


def test_damage_that_tensorstore_calls_not_implemented_is_damage(originals, tmp_path):
    shutil.copytree(originals / "v2", path := tmp_path / "d.zarr")
    header = bytes([2, 1, 0x33, 1, 2, 0, 0, 0, 2, 0, 0, 0, 18, 0, 0, 0, 2, 0])
    (path / "episode_0/actions/0.0").write_bytes(header)
    with pytest.raises(UserError, match="cannot read 'actions'"):
        read(path)
    assert errors(path) == ["damaged"]
