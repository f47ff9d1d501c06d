"""Whatever the metadata says: opening, analyze, validate and --repair end in results or one line, and soon."""

import json
import shutil
import warnings
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rich.console import Console

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.reports.dataset.analyze import analyze
from BC_training.validate.validate import validate

QUIET = Console(file=StringIO())
REMOVED, HUGE, NAN = object(), 10**400, float("nan")
VALUES = st.one_of(
    st.sampled_from([None, True, -1, 0, 1, 7, 10**9, 10**15, 2**63, HUGE, NAN, float("inf"), 1.5, 24.0]),
    st.sampled_from(
        ["", "a0", "24", "group", "array", "\ud800", "\x00", "uint8", "<f8", "|O", "numcodecs.pickle", "lz4"]
    ),
    st.sampled_from([[], {}, [1], [[]], [10**15, 3, 24, 32], [4, -3, 24, 32], [1.0, 3.0], {"a": {}}, ["a0"] * 7]),
    st.lists(st.sampled_from([0, 1, 3, 10**9, "x", None]), max_size=5),
)


def places(document: Any, path: tuple = ()) -> list[tuple]:
    """The ways to every value within."""
    keys = list(document) if isinstance(document, dict) else range(len(document)) if isinstance(document, list) else ()
    return [way for key in keys for way in [(*path, key), *places(document[key], (*path, key))]]


def replace(document: Any, way: tuple, value: Any) -> None:
    """Puts ``value`` there; REMOVED takes away what is there."""
    for key in way[:-1]:
        document = document[key]
    if value is REMOVED:
        document.pop(way[-1])
    else:
        document[way[-1]] = value


def one_line(call: Callable[[], Any]) -> None:
    """Whatever ``call`` does, it ends well or with one line."""
    try:
        call()
    except UserError as error:
        text = str(error)
        assert text.strip()
        assert "\n" not in text
        assert len(text) < 3000
        text.encode()


def use(path: Path) -> None:
    """Everything that reads a dataset."""

    def train() -> None:
        dataset = ZarrGameplayDataset(path)
        dataset.load_labels()
        dataset.frames(0, [0])

    def skip() -> None:
        ZarrGameplayDataset(path, validate_episodes=True).load_labels()

    out = path.parent / "repaired.zarr"
    one_line(train)
    one_line(skip)
    one_line(lambda: validate(path, QUIET, workers=1, json_file=path.parent / "x.json"))
    one_line(lambda: validate(path, QUIET, workers=1, repair_to=out))
    if out.exists():
        assert not [f for f in validate(out, QUIET, workers=1) if f.severity == "error"]
    one_line(lambda: analyze(path, QUIET, out=path.parent / "x.html"))


@pytest.fixture(scope="module")
def originals(tmp_path_factory, make_dataset) -> Path:
    """Three small datasets: zarr v2, v3, and v3 consolidated."""
    folder = tmp_path_factory.mktemp("originals")
    for name, zarr_format in (("v2", 2), ("v3", 3), ("all", 3)):
        make_dataset(folder / name, [4, 3], size=(4, 4), actions=2, state=2, zarr_format=zarr_format)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for group in ("episode_0", "episode_1", ""):
            zarr.consolidate_metadata(folder / "all" / group)
    return folder


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(data=st.data())
def test_any_change_of_metadata_ends_in_results_or_one_line(tmp_path_factory, originals, data):
    path = tmp_path_factory.mktemp("changed") / "x.zarr"
    shutil.copytree(originals / data.draw(st.sampled_from(["v2", "v3", "all"])), path)
    names = ("zarr.json", ".zgroup", ".zarray", ".zattrs")
    files = sorted(file for file in path.rglob("*") if file.name in names)
    for _ in range(data.draw(st.integers(1, 3))):
        file = data.draw(st.sampled_from(files))
        document = json.loads(file.read_text())
        ways = places(document)
        kind = data.draw(st.sampled_from(["value", "value", "value", "all", "cut", "nest"]))
        if kind == "value" and ways:
            replace(document, data.draw(st.sampled_from(ways)), data.draw(VALUES | st.just(REMOVED)))
            file.write_text(json.dumps(document))
        elif kind == "all":
            file.write_text(json.dumps(data.draw(VALUES)))
        elif kind == "cut":
            file.write_text(file.read_text()[: data.draw(st.integers(0, 40))])
            break
        elif kind == "nest":
            file.write_text('{"zarr_format": 3, "attributes": ' + "[" * 90_000 + "]" * 90_000 + "}")
            break
    use(path)
    shutil.rmtree(path.parent)
