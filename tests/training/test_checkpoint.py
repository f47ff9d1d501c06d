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
from BC_training.training.train_state import TrainState, abstract_model, make_optimizer

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
    majority = [True, False, False]
    return {
        "epoch": 3,
        "split": SPLIT,
        "majority": majority,
        "metrics": METRICS,
        "fingerprint": "abc",
        "progress": progress,
    }


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
    """The same with averages, whose bits are others than the parameters'."""
    flip = partial(jax.tree.map, lambda x: jnp.asarray((np.asarray(x).view(np.uint32) ^ 1).view(np.float32)))
    return state._replace(ema={"params": flip(state.params), "batch_stats": flip(state.batch_stats)})


def at(state: TrainState, step: int) -> TrainState:
    return state._replace(step=jnp.int32(step))


@pytest.fixture(scope="module")
def saved(tmp_path_factory, state, config, inputs, fields) -> Path:
    """A run with steps 10, 20 and 30, of which 20 was the best. Tests read it and leave it alone."""
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


def error_of(function, *args) -> str:
    """The message of the UserError that ``function`` raises; it must be one line."""
    with pytest.raises(UserError) as caught:
        function(*args)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


def same_bits(a, b) -> bool:
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        x.dtype == y.dtype and np.asarray(x).tobytes() == np.asarray(y).tobytes()
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True)
    )


# --- saving and restoring ------------------------------------------------------------------


def test_reads_back_what_was_saved(saved, config, inputs):
    found = read(saved)
    assert found.path == saved / "best" / "20"
    assert (found.step, found.epoch, found.decoding) == (20, 3, DECODING)
    assert found.inputs == inputs
    assert found.split == SPLIT
    assert found.majority == [True, False, False]
    assert found.metrics == METRICS
    assert to_dict(found.config) == to_dict(config)
    assert found.config.model == config.model
    assert found.fingerprint == "abc"
    assert found.progress == TrainingProgress(step=20, best_score=-math.inf)


def test_parameters_and_batch_statistics_are_bit_exact(saved, state, config, inputs):
    restored = read_model(read(saved))
    assert same_bits(restored.params, state.params)
    assert same_bits(restored.batch_stats, state.batch_stats)
    assert restored.graphdef == abstract_model(config, inputs).graphdef


@pytest.fixture(scope="module", params=["plain", "averaged"])
def wide(request, tmp_path_factory, state, averaged, config, inputs) -> tuple[Path, TrainState]:
    """A checkpoint, and the state with step 20 that it was saved from: with an EMA and without."""
    run = tmp_path_factory.mktemp("wide") / "run"
    whole = at(averaged if request.param == "averaged" else state, 20)
    save_run(run, config, inputs, state=whole)
    return run / "best" / "20", whole


def test_the_whole_state_is_bit_exact(wide):
    step, whole = wide
    assert same_bits(read_state(step, like=jax.tree.map(jnp.zeros_like, whole)), whole)


def test_the_shapes_of_a_state_are_enough_to_read_it(wide):
    step, whole = wide
    assert same_bits(read_state(step, jax.eval_shape(lambda: whole)), whole)


def test_what_plays_are_the_averages_where_there_are_some(wide):
    step, whole = wide
    restored = read_model(read(step))
    wanted = (whole.params, whole.batch_stats) if whole.ema is None else (whole.ema["params"], whole.ema["batch_stats"])
    assert same_bits((restored.params, restored.batch_stats), wanted)
    assert (whole.ema is None) == same_bits(restored.params, whole.params)


def test_a_state_of_another_shape_is_refused(saved, state):
    wider = state._replace(params=jax.tree.map(lambda x: np.zeros((*x.shape[:-1], x.shape[-1] + 1)), state.params))
    assert str(saved / "best" / "20") in error_of(read_state, saved / "best" / "20", wider)


def test_the_metadata_is_plain_json(saved, fields):
    stored = json.loads((saved / "best" / "20" / "meta" / "metadata").read_text())
    assert stored["format_version"] == checkpoint.FORMAT_VERSION
    assert stored["step"] == 20
    assert stored["inputs"]["action_names"] == ["a0", "a1", "a2"]
    assert set(fields) <= set(stored)


def test_no_pickle_anywhere(saved):
    files = [f for f in saved.rglob("*") if f.is_file()]
    assert files
    assert not [f for f in files if f.suffix in (".pkl", ".pickle", ".npy", ".npz")]


# --- finding -------------------------------------------------------------------------------


def test_a_step_a_folder_or_a_run_is_found(saved):
    assert find(saved) == saved / "best" / "20"
    assert find(str(saved)) == saved / "best" / "20"
    assert find(saved / "best") == saved / "best" / "20"
    assert find(saved / "last") == saved / "last" / "30"
    assert find(saved / "last" / "20") == saved / "last" / "20"
    assert find(saved / "best" / "20") == saved / "best" / "20"


def test_what_is_no_checkpoint_is_named(tmp_path, saved):
    assert "does not exist" in error_of(find, tmp_path / "nothing")
    assert "is not a checkpoint" in error_of(find, tmp_path)
    assert "is not a checkpoint" in error_of(find, saved / "best" / "20" / "meta")
    (tmp_path / "file").write_text("x")
    assert "is not a checkpoint" in error_of(find, tmp_path / "file")


# --- damage --------------------------------------------------------------------------------


def test_other_versions_are_refused_with_what_to_do(run):
    change_meta(run / "best/20", format_version=checkpoint.FORMAT_VERSION + 1)
    with pytest.raises(NewerFormat, match=r"newer version of this program .*: update it"):
        read(run)
    change_meta(run / "best/20", format_version=checkpoint.FORMAT_VERSION - 1)
    with pytest.raises(UserError, match=r"older version of this program .*: train again"):
        read(run)


@pytest.mark.parametrize("damage", ["", "{", '{"step": 20}', "[]", "null", "\0\0\0\0", "5"])
def test_damaged_metadata_is_named(run, damage):
    (run / "best" / "20" / "meta" / "metadata").write_text(damage)
    assert "damaged checkpoint (meta" in error_of(read, run)


def test_missing_meta_file(run):
    (run / "best" / "20" / "meta" / "metadata").unlink()
    assert "damaged checkpoint (meta" in error_of(read, run)


@pytest.mark.parametrize(
    "key", ["format_version", "step", "epoch", "inputs", "split", "majority", "progress", "delivery"]
)
def test_meta_that_lacks_a_key(run, key):
    change_meta(run / "best/20", **{key: ...})
    assert key in error_of(read, run)


@pytest.mark.parametrize("key", ["step", "epoch", "config", "split", "majority", "metrics", "inputs"])
@pytest.mark.parametrize("value", [None, "text", float("nan")])
def test_meta_of_wrong_types(run, key, value):
    change_meta(run / "best/20", **{key: value})
    assert "damaged checkpoint (meta" in error_of(read, run)


def test_meta_edited_by_hand_is_damaged(run):
    file = run / "best" / "20" / "meta" / "metadata"
    file.write_text(file.read_text().replace('"a0"', '"b0"'))
    assert "damaged checkpoint (meta/metadata has changed)" in error_of(read, run)


def test_references_in_a_checkpoints_config_are_text(run, monkeypatch):
    monkeypatch.setenv("SECRET", "do not read")
    config = json.loads((run / "best/20/meta/metadata").read_text())["config"]
    for text in ("${oc.env:SECRET}", "${training.batch_size}", "${", "\\\\${x}", "${no.such:resolver}"):
        config["dataset"]["path"] = text
        change_meta(run / "best/20", config=config)
        assert read(run).config.dataset.path == text


@pytest.mark.parametrize("thing", [None, 5, [], "a\0b", "x" * 5000, "~nobody-of-this-name"])
def test_what_is_no_path_is_no_checkpoint(thing):
    error_of(find, thing)


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
def test_a_decoding_that_is_none(run, value):
    write_decoding(run / "best/20", SimpleNamespace(to_dict=lambda: value))  # with a good checksum
    assert "damaged checkpoint (" in error_of(read, run)


@pytest.mark.parametrize("value", ["text", 5, None, {}, {"model": None}, {"model": {}}])
def test_meta_with_a_config_that_is_none(run, value):
    change_meta(run / "best/20", config=value)
    assert str(run / "best" / "20") in error_of(read, run)


def array_files(run: Path) -> list[Path]:
    return sorted(f for f in (run / "best" / "20" / "model").rglob("*") if f.is_file() and f.parent.name == "d")


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


@pytest.fixture(scope="module")
def damaged(tmp_path_factory, saved) -> subprocess.CompletedProcess[str]:
    """A process that reads a checkpoint with its array files damaged in turn, and prints what each reading gave.

    Another process, because Orbax leaves unfinished reads behind, whose errors surface later.
    """
    run = tmp_path_factory.mktemp("damaged") / "run"
    shutil.copytree(saved, run)
    command = [sys.executable, "-c", DAMAGE, str(run), *map(str, array_files(run))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def outcomes(damaged) -> dict[str, str]:
    """Damage to what came of it: the message of the UserError, "same", "other numbers", or another exception."""
    return json.loads(damaged.stdout)


def test_damaged_arrays_are_an_error_in_one_line_and_never_other_numbers(outcomes):
    assert len(outcomes) >= 10
    assert "all gone" in outcomes
    for damage, outcome in outcomes.items():
        assert "damaged checkpoint (model" in outcome, damage
        assert "\n" not in outcome, damage


def test_nothing_but_the_error_is_printed(damaged):
    assert "Traceback" not in damaged.stderr


def test_every_file_of_the_arrays_has_its_checksum(saved):
    step = saved / "best" / "20"
    listed = json.loads((step / "checksums.json").read_text())
    assert set(listed) == set(ITEMS)
    for item in ITEMS:
        files = {str(f.relative_to(step / item)) for f in (step / item).rglob("*") if f.is_file()}
        assert set(listed[item]) == files


@pytest.mark.parametrize(
    "damage", ["", "{", "[]", "null", "5", '{"model": 5}', '{"model": "x"}', '{"model": {}}', "\0"]
)
def test_damaged_checksums_are_named(run, damage):
    (run / "best" / "20" / "checksums.json").write_text(damage)
    assert "damaged checkpoint" in error_of(lambda: read_model(read(run)))


def test_a_damaged_optimizer_state_still_plays(run):
    before = read_model(read(run))
    file = next(f for f in (run / "best" / "20" / "optimizer").rglob("*") if f.is_file() and f.parent.name == "d")
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert same_bits(read_model(read(run)).params, before.params)


def test_best_survives_damage_of_the_others(run):
    shutil.rmtree(run / "last")
    assert same_bits(read_model(read(run)).params, read_model(read(run / "best")).params)


# --- verify --------------------------------------------------------------------------------


def test_whole_checkpoints_verify(saved, wide):
    for step in (saved / "best" / "20", saved / "last" / "20", saved / "last" / "30", wide[0]):
        verify(step)


@pytest.mark.parametrize("item", [*ITEMS, "checksums.json", "decoding.json"])
@pytest.mark.parametrize("damage", ["half", "bit", "byte more", "gone"])
def test_verify_finds_damage_of_every_file(run, item, damage):
    step = run / "best" / "20"
    files = [f for f in (step, *(step / item).rglob("*")) if f.is_file()] or [step / item]
    for file in files:
        content = file.read_bytes()
        middle = len(content) // 2
        if damage == "gone":
            file.unlink()
        else:
            flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
            file.write_bytes({"half": content[:middle], "bit": flipped, "byte more": content + b"x"}[damage])
        message = error_of(verify, step)
        assert f"{step} is a damaged checkpoint (" in message, file
        assert item == "checksums.json" or f"({item}" in message, file
        file.write_bytes(content)
    verify(step)


def test_verify_finds_any_flipped_bit_of_the_checksums(run):
    """Every bit of the items' names is tried: without its name an item would go unchecked."""
    step = run / "best" / "20"
    content = (step / "checksums.json").read_bytes()
    names = [content.index(f'"{item}":'.encode()) + i for item in ITEMS for i in range(len(item) + 3)]
    rng = np.random.default_rng(0)
    places = [8 * place + bit for place in names for bit in range(8)] + list(rng.integers(0, 8 * len(content), 100))
    for place in places:
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        (step / "checksums.json").write_bytes(damaged)
        assert "damaged checkpoint" in error_of(verify, step), place


def test_a_disk_that_cannot_be_read_is_damage(saved, monkeypatch):
    def fail(path):
        raise OSError(errno.EIO, "Input/output error", str(path))

    monkeypatch.setattr(Path, "read_bytes", fail)
    assert "Input/output error" in error_of(verify, saved / "best" / "20")
