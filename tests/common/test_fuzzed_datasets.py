"""Datasets that were damaged: read as they were written, or refused in one line, by training and by validate alike."""

import io
import shutil

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import change_file, require_one_line
from rich.console import Console

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.validate.validate import validate


def read(path):
    """Everything a training reads."""
    dataset = ZarrGameplayDataset(path)
    dataset.load_labels()
    episodes = range(len(dataset.episodes))
    return dataset, [
        (
            dataset.frames(e, range(dataset.episodes[e].length)),
            dataset.actions(e),
            dataset.state(e) if dataset.state_names else None,
        )
        for e in episodes
    ]


@pytest.fixture(scope="module")
def originals(tmp_path_factory, make_dataset):
    folder = tmp_path_factory.mktemp("originals")
    for version in (2, 3):
        make_dataset(folder / f"v{version}.zarr", [3, 4], size=(8, 8), actions=2, state=2, zarr_format=version)
    return folder


def dataset_property(examples: int):
    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def test(originals, tmp_path_factory, data):
        version = data.draw(st.sampled_from([2, 3]))
        original, path = originals / f"v{version}.zarr", tmp_path_factory.getbasetemp() / "fuzzed.zarr"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(original, path)
        files = sorted(file.relative_to(path) for file in path.rglob("*") if file.is_file())
        metadata = [file for file in files if file.name == "zarr.json" or file.name.startswith(".z")]
        file = path / data.draw(st.sampled_from(metadata) | st.sampled_from(files))
        is_chunk = file.relative_to(path) not in metadata
        if is_chunk and data.draw(st.integers(0, 9)) == 0:
            file.unlink()
        else:
            change_file(data, file)
        refused = None
        try:
            _, rows = read(path)
        except UserError as error:
            require_one_line(error)
            refused = error
        else:
            # Blosc of zarr v2 has no checksum; and other metadata may be another valid dataset.
            if is_chunk and version == 3:
                for one, other in zip(rows, read(original)[1], strict=True):
                    for values, expected in zip(one, other, strict=True):
                        np.testing.assert_array_equal(values, expected)
        try:
            findings = validate(path, Console(file=io.StringIO()), workers=1)
        except UserError as error:
            require_one_line(error)
            return
        assert all(len(f.message.splitlines()) == 1 for f in findings), findings
        if refused is not None:
            assert any(f.severity == "error" for f in findings), (refused, findings)

    return test


test_a_damaged_dataset_is_read_right_or_refused_in_one_line = dataset_property(60)
test_damaged_datasets_by_the_thousand = pytest.mark.slow(dataset_property(3000))


def test_damage_that_tensorstore_calls_not_implemented_is_damage(originals, tmp_path):
    shutil.copytree(originals / "v2.zarr", path := tmp_path / "d.zarr")
    header = bytes([2, 1, 0x33, 1, 2, 0, 0, 0, 2, 0, 0, 0, 18, 0, 0, 0, 2, 0])
    (path / "episode_0/actions/0.0").write_bytes(header)
    with pytest.raises(UserError, match="cannot read 'actions'"):
        read(path)
    findings = validate(path, Console(file=io.StringIO()), workers=1)
    assert [f.kind for f in findings if f.severity == "error"] == ["damaged"]
