"""One training, whatever the number of devices and processes: the same samples and losses."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from trainings import __file__ as script
from trainings import free_port, losses, results, rows, run, start, trainings, verify_all

from BC_training.common.errors import UserError
from BC_training.training import setup

STEPS = 20  # in one epoch
DEVICE, NONE = "dataset.cache=device", "dataset.cache=none"


@pytest.fixture(scope="module")
def data(tmp_path_factory, make_dataset) -> Path:
    """Two episodes make 20 batches of 16 together, whichever two are left for validation."""
    path = tmp_path_factory.mktemp("data") / "x.zarr"
    make_dataset(path, [163] * 4, state=0)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


def one(folder: Path, data: Path, *overrides: str, **options: Any) -> dict[str, Any]:
    return {"folder": str(folder), "data": str(data), "overrides": ["training.num_epochs=1", *overrides], **options}


def together(parts: dict[str, list[int]]) -> list[int]:
    """The samples of a step, of the devices in their order."""
    return [sample for place in sorted(parts, key=int) for sample in parts[place]]


def assert_agree(answer: dict[str, Any], folder: Path, reference: dict[str, Any], reference_folder: Path) -> None:
    assert answer["asked"] == reference["asked"]
    assert [together(parts) for parts in answer["reached"]] == reference["asked"]
    np.testing.assert_allclose(losses(folder), losses(reference_folder), rtol=1e-5)


def agree_on(counts: tuple[int, ...], folder: Path, data: Path, *overrides: str) -> None:
    runs = [one(folder / str(n), data, *overrides, devices=n) for n in (1, *counts)]
    first, *answers = trainings(runs, max(counts))
    assert first["end"] == "finished"
    assert len(first["asked"]) == len(losses(folder / "1")) == STEPS
    for n, answer in zip(counts, answers, strict=True):
        assert_agree(answer, folder / str(n), first, folder / "1")
        for parts in answer["reached"]:
            assert sorted(map(int, parts)) == list(range(0, 16, 16 // n))  # each device an equal part
            assert {len(part) for part in parts.values()} == {16 // n}


def test_two_devices_train_as_one(tmp_path, data):
    agree_on((2,), tmp_path, data, DEVICE)


@pytest.mark.slow
@pytest.mark.parametrize("cache", [DEVICE, NONE])
def test_any_number_of_devices_trains_as_one(tmp_path, data, cache):
    agree_on((2, 4, 8), tmp_path, data, cache)


@pytest.mark.slow
@pytest.mark.parametrize("cache", [DEVICE, NONE])
def test_two_processes_train_as_one(tmp_path, data, cache):
    port = free_port()
    both = [
        one(
            tmp_path / "2",
            data,
            cache,
            f"system.distributed={{coordinator: 'localhost:{port}', num_processes: 2, process_id: {i}}}",
        )
        for i in range(2)
    ]
    processes = [start([script, json.dumps([options])]) for options in both]
    answers = [results(process)[0] for process in processes]
    (reference,) = trainings([one(tmp_path / "1", data, cache)])
    assert [set(parts) for answer in answers for parts in answer["reached"]] == [{"0"}] * STEPS + [{"8"}] * STEPS
    parts = [first | second for first, second in zip(*(answer["reached"] for answer in answers), strict=True)]
    assert answers[0]["asked"] == answers[1]["asked"]
    assert_agree(answers[0] | {"reached": parts}, tmp_path / "2", reference, tmp_path / "1")
    verify_all(tmp_path / "2")


@pytest.mark.slow
@pytest.mark.parametrize("then", [1, 4])
def test_a_run_goes_on_with_other_devices(tmp_path, data, then):
    """The samples and losses go on as in an undisturbed run."""
    runs = [
        one(tmp_path / "whole", data, DEVICE, devices=2),
        one(tmp_path / "parts", data, DEVICE, devices=2, stop_at=7),
        one(tmp_path / "parts", data, DEVICE, devices=then),
    ]
    whole, stopped, resumed = trainings(runs, 4)
    assert stopped["end"].startswith("Interrupted: stopped by SIGTERM; saved after step")
    taken = STEPS - len(resumed["asked"])
    assert 7 <= taken < STEPS
    asked = stopped["asked"][:taken] + resumed["asked"]
    reached = stopped["reached"][:taken] + resumed["reached"]
    assert_agree({"asked": asked, "reached": reached}, tmp_path / "parts", whole, tmp_path / "whole")
    assert [row["step"] for row in rows(tmp_path / "parts") if row["kind"] == "train"] == list(range(1, STEPS + 1))


@pytest.mark.parametrize(("batch_size", "devices", "fit"), [(16, 3, "15 or 18"), (2, 8, "8")])
def test_a_batch_that_cannot_be_split_is_refused_before_anything_is_written(
    tmp_path, data, monkeypatch, batch_size, devices, fit
):
    monkeypatch.setattr(setup, "all_devices", lambda: SimpleNamespace(size=devices))
    monkeypatch.setattr(jax.stages.Lowered, "compile", lambda self: pytest.fail("compiled"))
    message = rf"^training\.batch_size={batch_size} cannot be split over {devices} devices: use {fit}$"
    with pytest.raises(UserError, match=message):
        run(tmp_path / "run", data, f"training.batch_size={batch_size}")
    assert not (tmp_path / "run").exists()
