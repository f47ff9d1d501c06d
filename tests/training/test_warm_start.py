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
from trainings import free_port, losses, results, run, settings, start
from untrained import save_run

from BC_training.common.axes import AxisBins
from BC_training.common.config import load_config
from BC_training.common.preprocess import InputSpec
from BC_training.common.schema import Config
from BC_training.training import checkpoint
from BC_training.training.train_state import SplitModel, abstract_model, init_state, make_optimizer, split_model
from BC_training.training.warm_start import take_over

BUTTONS = ("a0", "a1", "a2")
BINS = AxisBins((1.0, 2.0), 5, 10.0)


def inputs_of(buttons: Sequence[str], axes: tuple[str, ...] = (), bins: AxisBins | None = None) -> InputSpec:
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
    params, batch_stats = jax.tree.map(lambda x: x + 0.125, (model.params, model.batch_stats))
    state = init_state(replace(model, params=params, batch_stats=batch_stats), make_optimizer(config.training, 10)[0])
    return save_run(tmp_path_factory.mktemp("source") / "run", config, inputs, state=state)


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
    config = make_config({"conv_features": (4,), "conv_strides": (2,)})
    there, place = inputs_of("ab", ("turn", "look"), BINS), ("params", "head", "kernel")
    model = split_model(config, there)
    saved = arrays(model)
    state = init_state(model, make_optimizer(config.training, 10)[0])
    run = save_run(tmp_path / "run", config, there, state=state)
    for bins, kept in ((BINS, True), (replace(BINS, count=7), False)):
        here = inputs_of("b", ("look", "walk"), bins)
        found, _ = begin(run, config, here)
        fresh = arrays(split_model(config, here))
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


@pytest.mark.parametrize("name", ["pure_cnn", "temporal_cnn", "state_cnn", "resnet_policy", "vit_policy"])
def test_every_variant_has_its_head_where_it_is_looked_for(make_inputs, name):
    config = load_config(f"configs/{name}.yaml", ["model.use_state=false"] if name == "state_cnn" else [])
    model = abstract_model(config, replace(make_inputs(actions=2), window=config.window()))
    width = 2 * getattr(config.model, "action_chunk", 1)
    assert model.params["head"]["kernel"].shape[-1] == width


# --- trainings -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def data(tmp_path_factory, make_dataset) -> Path:
    path = tmp_path_factory.mktemp("data") / "x.zarr"
    make_dataset(path, [40] * 4, actions=len(BUTTONS), state=0)
    return path


ONE = ("training.num_epochs=1", "logging.report=false")


@pytest.fixture(scope="module")
def first(tmp_path_factory, data) -> Path:
    """An untrained run whose averages, which it plays with, are not its parameters."""
    config = load_config("configs/pure_cnn.yaml", settings("unused", "unused", "training.ema_decay=0.9"))
    model = split_model(replace(config, system=replace(config.system, seed=9)), inputs := inputs_of(BUTTONS))
    state = init_state(model, make_optimizer(config.training, 10)[0], averaged=True)
    state = state._replace(ema=jax.tree.map(lambda x: x + 0.5, state.ema))
    return save_run(tmp_path_factory.mktemp("first") / "run", config, inputs, state=state)


def test_a_training_begins_at_a_checkpoint_and_goes_on_from_its_own(tmp_path, data, first):
    """What is taken of a run that keeps an average is that average; later the run may be gone."""
    gone = shutil.copytree(first, tmp_path / "gone")
    begins = [*ONE, "training.learning_rate=1e-30", f"training.init_from={gone}"]
    printed = run(tmp_path, data, *begins)
    assert "taken over are convs, denses, head of a0, a1, a2; drawn anew: nothing" in " ".join(printed.split())
    saved, found = (checkpoint.read_model(checkpoint.read(place)).params for place in (first, tmp_path / "c/pure_cnn"))
    jax.tree.map(np.testing.assert_array_equal, saved, found)
    for other in ("null", str(first)):
        refused = user_error(run, tmp_path, data, *begins, f"training.init_from={other}")
        assert f"is of another training (training.init_from {gone} -> {other})" in refused
    shutil.rmtree(gone)
    printed = run(tmp_path, data, *begins, "training.resume_changed=true", "training.num_epochs=2")
    assert "going on after step" in printed
    assert "taken over" not in printed


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
