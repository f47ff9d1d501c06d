"""What a new training takes over of a checkpoint, and what it draws anew."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from dataset_files import flip_bit, user_error
from flax.traverse_util import flatten_dict
from rich.console import Console
from trainings import __file__ as script
from trainings import free_port, losses, results, run, start
from untrained import save_run

from BC_training.common.axes import AxisBins
from BC_training.common.config import load_config
from BC_training.common.preprocess import InputSpec
from BC_training.common.schema import Config
from BC_training.training import checkpoint
from BC_training.training.train_state import SplitModel, abstract_model, split_model
from BC_training.training.warm_start import take_over

BINS = AxisBins((1.0, 2.0), 5, 10.0)


def inputs_of(buttons: str, axes: tuple[str, ...] = (), bins: AxisBins | None = None) -> InputSpec:
    return InputSpec(tuple(buttons), (), (24, 32), (24, 32), 17.0, axis_names=axes, axis_bins=bins)


def arrays(model: SplitModel) -> dict[tuple[Any, ...], np.ndarray]:
    found = flatten_dict({"params": model.params, "batch_stats": model.batch_stats})
    return {place: np.asarray(x) for place, x in found.items()}


def beginning_at(source: Path, config: Config, **training: Any) -> Config:
    return replace(config, training=replace(config.training, init_from=str(source), **training))


def begin(source: Path, config: Config, inputs: InputSpec) -> tuple[dict[tuple[Any, ...], np.ndarray], str]:
    """The arrays at which a training from ``source`` begins, and what is printed."""
    screen = Console(file=StringIO(), width=2000)
    model = take_over(beginning_at(source, config), split_model(config, inputs), screen)
    assert isinstance(screen.file, StringIO)
    return arrays(model), screen.file.getvalue().strip()


@pytest.fixture(scope="module")
def source(tmp_path_factory, make_config) -> Path:
    """A run for buttons a, b and c, drawn from another seed; no value is one that a fresh start begins at."""
    config, inputs = make_config(), inputs_of("abc")
    model = split_model(replace(config, system=replace(config.system, seed=1)), inputs)
    moved = jax.tree.map(lambda x: x + 0.125, {"params": model.params, "batch_stats": model.batch_stats})
    return save_run(tmp_path_factory.mktemp("source") / "run", config, inputs, state=state_of(moved, config))


def state_of(trained: dict[str, Any], config: Config) -> Any:
    from BC_training.training.train_state import init_state, make_optimizer

    model = SplitModel(None, trained["params"], trained["batch_stats"], inputs_of("abc"))
    return init_state(model, make_optimizer(config.training, 10)[0])


@pytest.mark.parametrize(
    ("buttons", "model"),
    [
        ("abc", {}),
        ("cxa", {}),
        ("xyz", {}),
        ("bcxyz", {"dense_features": (16, 16)}),
        ("a", {"dense_features": (8,)}),
        ("ab", {"conv_features": (4, 4)}),
        ("ca", {"action_chunk": 2}),
    ],
)
def test_what_fits_has_the_bits_of_the_checkpoint_and_the_rest_those_of_a_fresh_start(
    source, make_config, buttons, model
):
    config, inputs = make_config(model), inputs_of(buttons)
    found, _ = begin(source, config, inputs)
    fresh, saved = arrays(split_model(config, inputs)), arrays(checkpoint.read_model(checkpoint.read(source)))
    assert found.keys() == fresh.keys()
    has_head = fresh["params", "head", "kernel"].shape[0] == 16
    for place, x in found.items():
        assert (x.dtype, x.shape) == (fresh[place].dtype, fresh[place].shape)
        if place[1] != "head":
            fits = place in saved and saved[place].shape == x.shape
            assert x.tobytes() == (saved if fits else fresh)[place].tobytes(), place
            continue
        for column in range(x.shape[-1]):
            name, is_first = buttons[column % len(buttons)], column < len(buttons)
            fits = has_head and is_first and name in "abc"
            of = saved[place][..., "abc".index(name)] if fits else fresh[place][..., column]
            assert x[..., column].tobytes() == of.tobytes(), (place, name)


def test_the_head_goes_by_the_names_of_axes_that_have_as_many_bins(tmp_path, make_config):
    config = make_config()
    there = inputs_of("ab", ("turn", "look"), BINS)
    run = save_run(tmp_path / "run", config, there)
    change = replace(config, system=replace(config.system, seed=5))
    (saved, fresh), place = (arrays(split_model(config, there)), {}), ("params", "head", "kernel")
    for bins, kept in ((BINS, True), (replace(BINS, count=7), False)):
        here = inputs_of("b", ("look", "walk"), bins)
        found, _ = begin(run, change, here)
        fresh = arrays(split_model(change, here))
        n = bins.count
        np.testing.assert_array_equal(found[place][:, 0], saved[place][:, 1])
        look = saved[place][:, 2 + n :] if kept else fresh[place][:, 1 : 1 + n]
        np.testing.assert_array_equal(found[place][:, 1 : 1 + n], look)
        np.testing.assert_array_equal(found[place][:, 1 + n :], fresh[place][:, 1 + n :])


@pytest.mark.parametrize(
    ("buttons", "model", "said"),
    [
        ("abc", {}, "taken over are convs, denses, head of a, b, c; drawn anew: nothing"),
        ("xa", {}, "taken over are convs, denses, head of a; drawn anew: head of x"),
        (
            "a",
            {"dense_features": (8,)},
            "taken over are convs; drawn anew: denses, head of a",
        ),
        (
            "a",
            {"conv_features": (4, 4)},
            "taken over are convs (5 of 10 arrays), denses (4 of 5 arrays), head of a; "
            "drawn anew: convs (5 of 10 arrays), denses (1 of 5 arrays)",
        ),
    ],
)
def test_what_was_taken_is_said_in_a_line(source, make_config, buttons, model, said):
    _, printed = begin(source, make_config(model), inputs_of(buttons))
    assert printed == f"begins at {checkpoint.find(source)}: {said}"


def test_every_variant_has_its_head_where_it_is_looked_for(make_inputs):
    for file in sorted((Path(checkpoint.__file__).parents[1] / "configs").glob("*_policy.yaml")):
        check_head(load_config(file), make_inputs(actions=2))
    for name in ("pure_cnn", "temporal_cnn"):
        check_head(load_config(f"configs/{name}.yaml"), make_inputs(actions=2))
    check_head(load_config("configs/state_cnn.yaml", ["model.use_state=false"]), make_inputs(actions=2))


def check_head(config: Config, inputs: InputSpec) -> None:
    chunk = getattr(config.model, "action_chunk", 1)
    model = abstract_model(config, replace(inputs, window=config.window()))
    assert arrays_shape(model, ("params", "head", "kernel"))[-1] == 2 * chunk


def arrays_shape(model: SplitModel, place: Sequence[str]) -> tuple[int, ...]:
    return flatten_dict({"params": model.params})[tuple(place)].shape


# --- trainings -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory, make_dataset) -> Path:
    path = tmp_path_factory.mktemp("data") / "x.zarr"
    make_dataset(path, [40] * 4, actions=3, state=0)
    return path


@pytest.fixture(scope="module")
def first(tmp_path_factory, data) -> Path:
    folder = tmp_path_factory.mktemp("first")
    run(folder, data, "training.num_epochs=1", "logging.report=false", "training.ema_decay=0.9")
    return folder / "c/pure_cnn"


ONE = ("training.num_epochs=1", "logging.report=false")


def test_a_training_begins_at_a_checkpoint_and_goes_on_from_its_own(tmp_path, data, first, capsys):
    """What is taken of a run that keeps an average is that average; the run may then be gone."""
    gone = shutil.copytree(first, tmp_path / "gone")
    printed = run(tmp_path, data, *ONE, f"training.init_from={gone}", "training.learning_rate=1e-30")
    assert "taken over are convs, denses, head of a0, a1, a2; drawn anew: nothing" in " ".join(printed.split())
    saved, found = (
        checkpoint.read_model(checkpoint.read(folder)).params for folder in (first, tmp_path / "c/pure_cnn")
    )
    jax.tree.map(np.testing.assert_array_equal, saved, found)
    shutil.rmtree(gone)
    again = [*ONE, f"training.init_from={gone}", "training.learning_rate=1e-30", "training.resume_changed=true"]
    printed = run(tmp_path, data, *again, "training.num_epochs=2")
    assert "going on after step" in printed
    assert "taken over" not in printed


def test_another_source_is_another_training(tmp_path, data, first, make_config):
    run(tmp_path, data, *ONE, f"training.init_from={first}")
    for other in ("null", str(checkpoint.find(first))):
        refused = user_error(run, tmp_path, data, *ONE, f"training.init_from={other}")
        assert f"is of another training (training.init_from {first} -> {other})" in refused


def test_a_fresh_training_is_the_same_without_a_source(tmp_path, data, first):
    """The samples are those of a training that begins anew; only where it begins differs."""
    seen = []
    for name, more in {"without": [], "with": [f"training.init_from={first}"]}.items():
        run(tmp_path / name, data, *ONE, *more)
        seen.append(losses(tmp_path / name))
    assert len(seen[0]) == len(seen[1])
    assert seen[0] != seen[1]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("absent", "absent does not exist: give a run's folder"),
        ("empty", "empty is not a checkpoint: give a run's folder"),
        ("damaged", "is a damaged checkpoint (model/"),
    ],
)
@pytest.mark.parametrize("resume", ["auto", "never"])
def test_a_source_that_is_no_checkpoint_is_refused_before_anything_is_recorded(
    tmp_path, first, make_dataset, change, said, resume
):
    place = tmp_path / change
    if change == "empty":
        place.mkdir()
    if change == "damaged":
        shutil.copytree(first, place)
        flip_bit(next(f for f in sorted((checkpoint.find(place) / "model").rglob("*")) if f.parent.name == "d"))
    data = "dataset.record={game: doom/basic, episodes: 2}"
    refused = user_error(
        run, tmp_path, tmp_path / "no.zarr", data, f"training.init_from={place}", f"training.resume={resume}"
    )
    assert said in refused
    assert not {"c", "l", "no.zarr"} & {file.name for file in tmp_path.iterdir()}


def test_a_source_of_which_nothing_fits_is_refused_before_anything_is_written(tmp_path, data, first):
    other = ("model.conv_features=[3]", "model.conv_strides=[2]", "model.dense_features=[5]", "model.batch_norm=false")
    refused = user_error(run, tmp_path, data, *ONE, *other, f"training.init_from={first}")
    assert f"training.init_from={first}: no parameter of it fits pure_cnn by name and shape" in refused
    assert "convs.0.conv.kernel [3, 3, 3, 4]" in refused
    assert "convs.0.conv.kernel [3, 3, 3, 3]" in refused
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_two_processes_begin_at_the_same_parameters(tmp_path, data, first):
    """The second process cannot read the source."""
    port = free_port()
    processes = []
    for i, place in enumerate((first, tmp_path / "elsewhere")):
        connect = f"system.distributed={{coordinator: 'localhost:{port}', num_processes: 2, process_id: {i}}}"
        overrides = [*ONE, f"training.init_from={place}", connect]
        options = {"folder": str(tmp_path / "2"), "data": str(data), "overrides": overrides}
        processes.append(start([script, json.dumps([options])]))
    assert [results(process)[0]["end"] for process in processes] == ["finished"] * 2
    run(tmp_path / "1", data, *ONE, f"training.init_from={first}")
    np.testing.assert_allclose(losses(tmp_path / "2"), losses(tmp_path / "1"), rtol=1e-5)
