"""Predicts a recorded episode as in play, writes the table of it, and runs the README's example."""

import dataclasses
import json
import re
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import zarr
from dataset_files import user_error
from PIL import Image
from pyarrow import csv, parquet
from rich.console import Console
from untrained import save_run

from BC_training import __main__ as command_line
from BC_training.common.decode import Decoding
from BC_training.common.errors import UserError
from BC_training.common.preprocess import Window
from BC_training.common.schema import Config, DatasetConfig
from BC_training.evaluation.evaluate import score
from BC_training.evaluation.predict import EpisodePredictions, open_episode, predict, predict_episode
from BC_training.evaluation.split_predictions import predict_split
from BC_training.inference import Policy
from BC_training.models.temporal_cnn.model import Config as TemporalConfig
from BC_training.training import checkpoint
from BC_training.training.decoding_file import write_decoding

QUIET = Console(file=StringIO())
README = Path(__file__).resolve().parent.parent / "README.md"
LENGTHS, NUMBERS = [40, 30, 20], [0, 1, 5]
SMALL_TEMPORAL = {"conv_features": (4,), "conv_strides": (4,), "position_features": 2, "features": 8}


@pytest.fixture(scope="module")
def runs(tmp_path_factory, make_dataset, make_config, make_inputs) -> dict[str, Path]:
    """Untrained runs with a history: one sees stacked frames, one sees previous actions and looks ahead."""
    folder = tmp_path_factory.mktemp("inference")
    make_dataset(folder / "x.zarr", LENGTHS, actions=3, numbers=NUMBERS, fps=10.0)
    windows = {
        "pure_cnn": Window(history=3, frame_skip=2),
        "temporal_cnn": Window(history=4, action_history=2, action_shift=1, every_frame=True),
    }
    found = {}
    for name, window in windows.items():
        config: Config = make_config()
        if name == "temporal_cnn":
            config = dataclasses.replace(config, model=TemporalConfig(name, **SMALL_TEMPORAL))
        config = dataclasses.replace(config, dataset=DatasetConfig(path=str(folder / "x.zarr")))
        inputs = dataclasses.replace(make_inputs(), window=window)
        found[name] = save_run(folder / name, config, inputs, val=("episode_1",))
    return found


def test_an_episodes_own_rate_is_used_where_it_is_a_number(runs, tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [4, 4, 4], actions=3, fps=10.0)
    for number, fps in ((0, float("nan")), (1, 20.0)):
        zarr.open_group(tmp_path / f"x.zarr/episode_{number}").attrs["fps"] = fps
    rates = [predict_episode(*open_episode(runs["pure_cnn"], tmp_path / "x.zarr", e), QUIET).fps for e in range(3)]
    assert rates == [15.0, 20.0, 10.0]


@pytest.mark.parametrize("name", ["pure_cnn", "temporal_cnn"])
def test_streaming_equals_the_offline_evaluation(runs, name):
    offline = predict_split(runs[name], QUIET, split="val")
    found = predict_episode(*open_episode(runs[name], None, 1), QUIET)
    assert found.episode == "episode_1"
    assert len(found) == 30
    assert np.ptp(found.probability, axis=0).min() > 1e-4  # it depends on what is seen
    scored = len(found.true)
    assert scored == (29 if name == "temporal_cnn" else 30)
    np.testing.assert_allclose(found.probability[:scored], offline.probability, atol=1e-5)
    assert found.exact_match == pytest.approx(score(offline, offline.saved.decoding).exact_match)


def test_a_policy_that_samples_does_not_sample_on_recordings(runs, tmp_path):
    run = Path(shutil.copytree(runs["pure_cnn"], tmp_path / "run"))
    rules, step = checkpoint.read(run).decoding, checkpoint.find(run)
    write_decoding(step, dataclasses.replace(rules, temperature=1.0))
    assert checkpoint.read(run).decoding.temperature == 1
    calm, found = (predict_episode(*open_episode(folder, None, 1), QUIET) for folder in (runs["pure_cnn"], run))
    np.testing.assert_array_equal(found.predicted, calm.predicted)


def test_a_decoding_of_other_buttons_is_refused(runs):
    own = Policy.load(runs["pure_cnn"]).decoding
    for names in (reversed(list(own.thresholds)), ["zzz"]):
        with pytest.raises(UserError, match=r"the decoding is of .*; the policy presses "):
            Policy.load(runs["pure_cnn"], Decoding(dict.fromkeys(names, 0.4)))


def test_a_caller_may_change_the_returned_buttons(runs):
    """The model takes previous actions."""
    frames = np.random.default_rng(0).integers(0, 256, (6, 3, *Policy.load(runs["temporal_cnn"]).inputs.recorded_size))
    seen = []
    for spoil in (False, True):
        policy = Policy.load(runs["temporal_cnn"])
        for frame in frames.astype(np.uint8):
            pressed = policy.act(frame).buttons
            seen.append(policy.last_probabilities)
            if spoil:
                pressed[:] = ~pressed
    np.testing.assert_array_equal(seen[:6], seen[6:])


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_the_table_is_read_back_as_predicted(runs, tmp_path, suffix):
    out = tmp_path / f"p.{suffix}"
    result = predict(runs["temporal_cnn"], out, QUIET, episode=5, json_file=tmp_path / "p.json")
    assert json.loads((tmp_path / "p.json").read_text()) == result
    expected = predict_episode(*open_episode(runs["temporal_cnn"], None, 5), QUIET)
    table = parquet.read_table(out) if suffix == "parquet" else csv.read_csv(out)
    kinds = ("true", "predicted", "probability")
    assert table.column_names == ["frame", *(f"a{i}_{kind}" for i in range(3) for kind in kinds)]
    assert table["frame"].to_pylist() == list(range(20))
    for i in range(3):
        assert table[f"a{i}_true"].to_pylist() == [*expected.true[:, i].tolist(), None]  # it looks one frame ahead
        assert table[f"a{i}_predicted"].to_pylist() == expected.predicted[:, i].tolist()
        found = np.array(table[f"a{i}_probability"].to_pylist(), np.float32)
        np.testing.assert_array_equal(found, expected.probability[:, i])
    assert result["frames"] == 20
    assert result["exact_match"] == expected.exact_match
    assert 0 < result["latency_ms"]["p50"] <= result["latency_ms"]["p90"] <= result["latency_ms"]["p99"]


def test_a_prediction_stands_beside_the_recorded_buttons_that_it_predicts(runs, make_dataset, tmp_path):
    (written,) = make_dataset(tmp_path / "y.zarr", [6], actions=3)
    ahead, now = (
        predict_episode(*open_episode(runs[name], tmp_path / "y.zarr", 0), QUIET)
        for name in ("temporal_cnn", "pure_cnn")
    )
    np.testing.assert_array_equal(now.true, written.actions)
    np.testing.assert_array_equal(ahead.true, written.actions[1:])


def test_latency_leaves_out_the_first_call():
    one, two = ([100.0], [100.0, 0.002])
    for seconds, expected in ((one, None), (two, 2.0)):
        none = np.zeros((len(seconds), 1), bool)
        times = np.array(seconds)
        found = EpisodePredictions(
            "e",
            ("a",),
            none,
            none[:, 0],
            none,
            none.astype(np.float32),
            np.ones(1),
            times,
            None,
            (),
            none[:, :0],
            none[:, :0],
            None,
        )
        assert found.latency_ms == {"p50": expected, "p90": expected, "p99": expected}


class Lazy:
    """Stands for Gymnasium's LazyFrames and PyTorch's tensors, of which NumPy makes an array, or not."""

    def __init__(self, frame: np.ndarray | None):
        self.frame = frame

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        if self.frame is None:
            raise TypeError("can't convert cuda:0 device type tensor to numpy.\nUse Tensor.cpu()")
        return self.frame


FRAME = np.random.default_rng(0).integers(0, 256, (3, 24, 32), np.uint8)


@pytest.mark.parametrize(
    "given",
    [
        FRAME.tolist(),
        [*FRAME],
        Lazy(FRAME),
        FRAME.astype(np.int64),
        jnp.asarray(FRAME),
        np.asfortranarray(FRAME),
        Image.fromarray(np.moveaxis(FRAME, 0, -1)),
        Image.fromarray(np.moveaxis(FRAME, 0, -1)).convert("RGBA"),
    ],
    ids=["lists", "a list of arrays", "lazy", "int64", "jax", "fortran", "pillow", "pillow with alpha"],
)
def test_frames_of_other_libraries_are_accepted(runs, given):
    policy = Policy.load(runs["pure_cnn"])
    expected = policy.probabilities(FRAME)
    policy.reset()
    np.testing.assert_array_equal(policy.probabilities(given), expected)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.moveaxis(FRAME, 0, -1), "the colours first"),
        (FRAME.astype(np.float32), "give integers from 0 to 255"),
        (FRAME[:, :12], "got uint8 (3, 12, 32)"),
        (FRAME[None], "got uint8 (1, 3, 24, 32)"),
        (FRAME.astype(np.int16) - 1, "got int16"),
        (FRAME.astype(np.int16) + 1, "got int16"),
        (FRAME > 99, "got bool"),
        (FRAME[:0], "got uint8 (0, 24, 32)"),
        (Image.new("RGB", (24, 32)), "got uint8 (3, 32, 24)"),
        (Image.new("L", (33, 24)), "got uint8 (3, 24, 33)"),
        ([[1], [1, 2]], "is no array"),
        (Lazy(None), "can't convert cuda:0"),
        (None, "got object ()"),
        ("frame.png", "got <U9 ()"),
        ({"frame": FRAME}, "got object ()"),
        (np.datetime64("2024-01-01"), "got datetime64"),
    ],
)
def test_values_that_are_no_frames_are_refused_in_one_line(runs, given, message):
    error = user_error(Policy.load(runs["pure_cnn"]).act, given)
    assert error.startswith("the policy takes frames uint8 (3, 24, 32)")
    assert message in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--out", "p.json"], "predictions are .parquet or .csv, call it p.parquet"),
        (["--out", "no/where.csv"], "cannot write no/where.csv"),
        (["--out", "p.csv", "--json", "no/p.json"], "cannot write no/p.json"),
        (["--out", "p.csv", "--episode", "3"], "has no episode 3 (it has 0 to 1, 5)"),
        (["--out", "p.csv", "--data", "nowhere.zarr"], "nowhere.zarr"),
        (["--out", "p.csv", "--data", "large.zarr"], "has frames of 48x64; "),
        (["--out", "p.csv", "--data", "many.zarr"], "has actions a0, a1, a2, a3; "),
        (["--out", "p.csv", "--checkpoint", "nowhere"], "nowhere does not exist"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(runs, monkeypatch, capsys, tmp_path, make_dataset, arguments, message):
    monkeypatch.chdir(tmp_path)
    make_dataset(Path("large.zarr"), [3], actions=3, size=(48, 64))
    make_dataset(Path("many.zarr"), [3], actions=4)
    monkeypatch.setattr(sys, "argv", ["BC_training", "inference", "--checkpoint", str(runs["pure_cnn"]), *arguments])
    with pytest.raises(SystemExit) as end:
        command_line.main()
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert {path.name for path in tmp_path.iterdir()} == {"large.zarr", "many.zarr"}


def test_the_module_runs_as_a_command(runs, tmp_path):
    command = [sys.executable, "-m", "BC_training.inference", "--checkpoint", runs["pure_cnn"], "--out", "p.parquet"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "40 frames, exact match" in done.stdout
    assert parquet.read_table(tmp_path / "p.parquet").num_rows == 40


def test_the_readmes_example_plays_an_episode(tmp_path, monkeypatch, make_config, make_inputs):
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(example.strip().splitlines()) <= 14
    inputs = make_inputs(actions=7, recorded_size=(72, 128))
    save_run(tmp_path / "BC_training/checkpoints/quickstart", make_config(), inputs)
    monkeypatch.chdir(tmp_path)
    ran: dict = {}
    exec(compile(example, README, "exec"), ran)
    assert ran["over"] is True
    assert ran["action"].buttons.shape == (7,)
