import errno
import json
import math
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dataset_files import flip_bit, user_error
from rich.console import Console
from untrained import change_meta, meta_of, save_run

from BC_training.common.config import to_dict
from BC_training.common.decode import Decoding
from BC_training.common.errors import UserError
from BC_training.training import checkpoint
from BC_training.training.checkpoint import ITEMS, NewerFormat, find, read, read_model, read_state, verify
from BC_training.training.checkpoint_writer import CheckpointWriter
from BC_training.training.decoding_file import write_decoding
from BC_training.training.progress import TrainingProgress
from BC_training.training.run_folder import lock_run
from BC_training.training.train_state import TrainState, abstract_model, eval_params, make_optimizer

METRICS = {"val": {"macro_f1": 0.5, "kl": None, "per_action": {"a0": {"f1": 1.0}}}, "epoch": 3}
DECODING = Decoding({"a0": 0.4, "a1": 0.5, "a2": 0.25}, 2.0, 0.1, (("a2", "a0"),))
SPLIT = {"train": ["episode_0", "episode_10"], "val": ["episode_2"], "test": []}


@pytest.fixture(scope="module")
def config(make_config):
    return make_config({"conv_features": (4,), "conv_strides": (2,), "dense_features": (64, 64)})


@pytest.fixture(scope="module")
def inputs(make_inputs):
    return make_inputs(recorded_size=(48, 64))


@pytest.fixture(scope="module")
def fields() -> dict[str, Any]:
    """Fields of the metadata."""
    progress = TrainingProgress(step=20, best_score=-math.inf)
    plain = {"epoch": 3, "split": SPLIT, "metrics": METRICS, "fingerprint": "abc"}
    return plain | {"majority": [True, False, False], "progress": progress}


@pytest.fixture(scope="module")
def state(config, inputs) -> TrainState:
    """Arrays of random bits, NaN and infinity among them, in place of a trained state."""
    model = abstract_model(config, inputs)
    rng = np.random.default_rng(0)

    def draw(x) -> jax.Array:
        if jnp.issubdtype(x.dtype, jnp.integer):
            return jnp.asarray(rng.integers(0, 100, x.shape), x.dtype)
        return jnp.asarray(rng.integers(0, 2**32, x.shape, np.uint32).view(np.float32).reshape(x.shape))

    optimizer, _ = make_optimizer(config.training, 10)
    params, batch_stats = jax.tree.map(draw, (model.params, model.batch_stats))
    opt_state = jax.tree.map(draw, jax.eval_shape(optimizer.init, model.params))
    return TrainState(jnp.int32(0), params, batch_stats, opt_state)


@pytest.fixture(scope="module")
def averaged(state) -> TrainState:
    """The same with averages, whose bits differ from the parameters'."""
    flip = partial(jax.tree.map, lambda x: jnp.asarray((np.asarray(x).view(np.uint32) ^ 1).view(np.float32)))
    return state._replace(ema={"params": flip(state.params), "batch_stats": flip(state.batch_stats)})


def at(state: TrainState, step: int) -> TrainState:
    return state._replace(step=jnp.int32(step))


@pytest.fixture(scope="module")
def saved(tmp_path_factory, state, config, inputs, fields) -> Path:
    """A run with steps 10, 20 and 30, of which 20 was the best. Tests do not change it."""
    run = tmp_path_factory.mktemp("checkpoint") / "run"
    with lock_run(run), CheckpointWriter(run, 2, Console(quiet=True)) as writer:
        for step in (10, 20, 30):
            writer.save(at(state, step), meta_of(config, inputs, step=step, **fields), DECODING, is_best=step != 30)
        writer.finish()
    return run


@pytest.fixture
def run(tmp_path, saved) -> Path:
    """A copy to damage."""
    shutil.copytree(saved, tmp_path / "run")
    return tmp_path / "run"


def same_bits(a, b) -> bool:
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        x.dtype == y.dtype and np.asarray(x).tobytes() == np.asarray(y).tobytes()
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


# --- saving and restoring ------------------------------------------------------------------


def test_the_metadata_is_read_as_it_was_saved(saved, config, inputs):
    found = read(saved)
    assert found.path == saved / "best" / "20"
    assert (found.step, found.epoch, found.decoding) == (20, 3, DECODING)
    assert found.inputs == inputs
    assert (found.split, found.majority, found.metrics) == (SPLIT, [True, False, False], METRICS)
    assert to_dict(found.config) == to_dict(config)
    assert found.config.model == config.model
    assert found.fingerprint == "abc"
    assert found.progress == TrainingProgress(step=20, best_score=-math.inf)


@pytest.mark.parametrize("kind", ["state", "averaged"])
def test_a_state_and_the_model_that_plays_are_bit_exact(tmp_path, request, config, inputs, kind):
    """Where there are averages, they play. The shapes of a state are enough to read it."""
    whole = at(request.getfixturevalue(kind), 20)
    step = save_run(tmp_path / "run", config, inputs, state=whole) / "best" / "20"
    for like in (jax.tree.map(jnp.zeros_like, whole), jax.eval_shape(lambda: whole)):
        assert same_bits(read_state(step, like), whole)
    played = read_model(read(step))
    assert same_bits((played.params, played.batch_stats), eval_params(whole))
    assert played.graphdef == abstract_model(config, inputs).graphdef


def test_a_state_of_another_shape_is_refused(saved, state):
    wider = state._replace(params=jax.tree.map(lambda x: np.zeros((*x.shape[:-1], x.shape[-1] + 1)), state.params))
    assert str(saved / "best" / "20") in user_error(read_state, saved / "best" / "20", wider)


def test_the_metadata_is_plain_json_and_nothing_is_a_pickle(saved, fields):
    stored = json.loads((saved / "best" / "20" / "meta" / "metadata").read_text())
    assert (stored["format_version"], stored["step"]) == (checkpoint.FORMAT_VERSION, 20)
    assert stored["inputs"]["action_names"] == ["a0", "a1", "a2"]
    assert set(fields) <= set(stored)
    assert not [f for f in saved.rglob("*") if f.suffix in (".pkl", ".pickle", ".npy", ".npz")]


# --- finding -------------------------------------------------------------------------------


def test_a_checkpoint_is_found_by_its_step_its_folder_or_its_run(saved):
    assert find(saved) == saved / "best" / "20"
    assert find(str(saved)) == saved / "best" / "20"
    assert find(saved / "best") == saved / "best" / "20"
    assert find(saved / "last") == saved / "last" / "30"
    assert find(saved / "last" / "20") == saved / "last" / "20"
    assert find(saved / "best" / "20") == saved / "best" / "20"


def test_a_path_without_a_checkpoint_is_named_in_the_error(tmp_path, saved):
    assert "does not exist" in user_error(find, tmp_path / "nothing")
    assert "is not a checkpoint" in user_error(find, tmp_path)
    assert "is not a checkpoint" in user_error(find, saved / "best" / "20" / "meta")
    (tmp_path / "file").write_text("x")
    assert "is not a checkpoint" in user_error(find, tmp_path / "file")


# --- damage --------------------------------------------------------------------------------


def test_checkpoints_of_other_versions_are_refused_with_advice(run):
    change_meta(run / "best/20", format_version=checkpoint.FORMAT_VERSION + 1)
    with pytest.raises(NewerFormat, match=r"was written by a newer version of this program .*: update it"):
        read(run)
    change_meta(run / "best/20", format_version=checkpoint.FORMAT_VERSION - 1)
    with pytest.raises(UserError, match=r"was written by an older version of this program .*: train again"):
        read(run)


@pytest.mark.parametrize("damage", [None, "", "{", '{"step": 20}', "[]", "null", "\0\0\0\0", "5"])
def test_missing_or_damaged_metadata_is_named(run, damage):
    file = run / "best" / "20" / "meta" / "metadata"
    file.unlink() if damage is None else file.write_text(damage)
    assert "damaged checkpoint (meta" in user_error(read, run)


@pytest.mark.parametrize(
    "key",
    ["format_version", "step", "epoch", "config", "split", "majority", "metrics", "inputs", "progress", "delivery"],
)
def test_metadata_without_a_key_or_with_a_value_of_another_type_is_damaged(run, key):
    for value in (..., None, "text", float("nan")):
        change_meta(run / "best/20", **{key: value})
        message = user_error(read, run)
        assert "damaged checkpoint (meta" in message or "older version" in message
        assert value is not ... or key in message


def test_metadata_edited_by_hand_is_damaged(run):
    file = run / "best" / "20" / "meta" / "metadata"
    file.write_text(file.read_text().replace('"a0"', '"b0"'))
    assert "damaged checkpoint (meta/metadata has changed)" in user_error(read, run)


def test_references_in_a_checkpoints_config_are_not_resolved(run, monkeypatch):
    monkeypatch.setenv("SECRET", "do not read")
    config = json.loads((run / "best/20/meta/metadata").read_text())["config"]
    for text in ("${oc.env:SECRET}", "${training.batch_size}", "${", "\\\\${x}", "${no.such:resolver}"):
        config["dataset"]["path"] = text
        change_meta(run / "best/20", config=config)
        assert read(run).config.dataset.path == text


@pytest.mark.parametrize("thing", [None, 5, [], "a\0b", "x" * 5000, "~nobody-of-this-name"])
def test_a_value_that_is_no_path_is_refused(thing):
    user_error(find, thing)


@pytest.mark.parametrize(
    "value",
    [
        *("text", 5, None, {}, {"thresholds": [0.5]}),
        DECODING.to_dict() | {"hysteresis": 2.0},
        DECODING.to_dict() | {"exclusive": 5},
        DECODING.to_dict() | {"other": 1},
        Decoding({"a0": 0.5, "a1": 0.5}).to_dict(),
        Decoding({"a1": 0.5, "a0": 0.5, "a2": 0.5}).to_dict(),
    ],
)
def test_a_damaged_decoding_or_one_of_other_buttons_is_refused(run, value):
    write_decoding(run / "best/20", SimpleNamespace(to_dict=lambda: value))  # with a good checksum
    assert "damaged checkpoint (" in user_error(read, run)


@pytest.mark.parametrize("value", [5, {}, {"model": None}, {"model": {}}])
def test_metadata_with_an_invalid_config_is_refused(run, value):
    change_meta(run / "best/20", config=value)
    assert str(run / "best" / "20") in user_error(read, run)


def array_files(run: Path, item: str) -> list[Path]:
    return sorted(f for f in (run / "best" / "20" / item).rglob("*") if f.is_file() and f.parent.name == "d")


DAMAGE = """
import json, sys
from pathlib import Path
import jax
import numpy as np
from BC_training.training.checkpoint import read, read_model
from BC_training.common.errors import UserError

run, files = Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]]
whole = {file: file.read_bytes() for file in files}

def arrays():
    model = read_model(read(run))
    return [np.asarray(x).tobytes() for x in jax.tree.leaves((model.params, model.batch_stats))]

def outcome():
    try:
        return "same" if arrays() == undamaged else "other numbers"
    except UserError as error:
        return str(error)
    except Exception as error:
        return f"{type(error).__name__} instead of a UserError"

undamaged, outcomes = arrays(), {}
for file, content in whole.items():
    damages = {"half": content[: len(content) // 2]}
    for position in (0, len(content) // 2):
        damages[f"bit {position}"] = content[:position] + bytes([content[position] ^ 16]) + content[position + 1 :]
    for damage, damaged in damages.items():
        file.write_bytes(damaged)
        outcomes[f"{file.name}: {damage}"] = outcome()
    file.write_bytes(content)
for file in files:
    file.unlink()
outcomes["all gone"] = outcome()
for file, content in whole.items():
    file.write_bytes(content)
print(json.dumps(outcomes))
"""


def test_damaged_arrays_are_an_error_in_one_line_and_never_other_numbers(run):
    """Another process reads them, because Orbax leaves unfinished reads behind, whose errors surface later."""
    command = [sys.executable, "-c", DAMAGE, str(run), *map(str, array_files(run, "model"))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    outcomes = json.loads(done.stdout)
    assert len(outcomes) >= 10
    assert "all gone" in outcomes
    for damage, outcome in outcomes.items():
        assert "damaged checkpoint (model" in outcome, damage
        assert "\n" not in outcome, damage


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", "null", "5", '{"model": 5}', '{"model": "x"}', '{"model": {}}', "\0"]
)
def test_damaged_checksums_are_named(run, damage):
    (run / "best" / "20" / "checksums.json").write_text(damage)
    assert "damaged checkpoint" in user_error(lambda: read_model(read(run)))


def test_a_damaged_optimizer_state_still_plays(run):
    before = read_model(read(run))
    flip_bit(array_files(run, "optimizer")[0])
    assert same_bits(read_model(read(run)).params, before.params)


# --- verify --------------------------------------------------------------------------------


@pytest.mark.parametrize("item", [*ITEMS, "checksums.json", "decoding.json"])
def test_verify_finds_damage_of_every_file(run, item):
    step = run / "best" / "20"
    for file in [f for f in (step / item).rglob("*") if f.is_file()] or [step / item]:
        content = file.read_bytes()
        half = content[: len(content) // 2]
        for damaged in (half, half + bytes([content[len(half)] ^ 1]) + content[len(half) + 1 :], content + b"x", None):
            file.unlink() if damaged is None else file.write_bytes(damaged)
            message = user_error(verify, step)
            assert f"{step} is a damaged checkpoint (" in message, file
            assert item == "checksums.json" or f"({item}" in message, file
        file.write_bytes(content)
        verify(step)


def test_verify_finds_any_flipped_bit_of_the_checksums(run):
    """It tries every bit of the items' names: without its name an item would not be checked."""
    step = run / "best" / "20"
    content = (step / "checksums.json").read_bytes()
    names = [content.index(f'"{item}":'.encode()) + i for item in ITEMS for i in range(len(item) + 3)]
    rng = np.random.default_rng(0)
    places = [8 * place + bit for place in names for bit in range(8)] + list(rng.integers(0, 8 * len(content), 100))
    for place in places:
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        (step / "checksums.json").write_bytes(damaged)
        assert "damaged checkpoint" in user_error(verify, step), place


def test_a_disk_that_cannot_be_read_is_damage(saved, monkeypatch):
    def fail(path):
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(Path, "read_bytes", fail)
    assert "Input/output error" in user_error(verify, saved / "best" / "20")
