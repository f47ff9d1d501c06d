"""Ablations take away a part of what a policy sees, and a policy that only repeats is called a copycat."""

import io
import json
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
import scipy.stats
import zarr
from rich.console import Console
from rich.progress import Progress
from trainings import settings

from BC_training.common.action import Action
from BC_training.common.config import load_config
from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.metrics import baselines, held_before_seen, majority_actions, targets
from BC_training.common.preprocess import Window
from BC_training.common.schema import DatasetConfig
from BC_training.data.loader import make_tier
from BC_training.data.samples import Samples
from BC_training.evaluation.diagnose import ablations, diagnose, mean_gain
from BC_training.evaluation.evaluate import evaluate
from BC_training.evaluation.events import event_scores
from BC_training.evaluation.results import Diagnosis, Evaluation, Gain
from BC_training.runtime.sharding import one_device
from BC_training.train import train

QUIET = Console(file=io.StringIO())
NAMES = ("red", "green", "blue")


def held_for_a_while(episodes: int, frames: int, seed: int = 0) -> list[np.ndarray]:
    """Recordings of three buttons, bool [frames, 3] each, which change every eighth frame on average."""
    rng = np.random.default_rng(seed)
    return [np.logical_xor.accumulate(rng.random((frames, 3)) < 0.12, axis=0) for _ in range(episodes)]


# --- what is taken away ------------------------------------------------------------------------

WINDOWS = {
    "one frame": Window(),
    "history and shift": Window(history=3, frame_skip=2, action_shift=1),
    "every frame": Window(history=2, action_history=2, every_frame=True),
    "state": Window(history=2, state=True, since_change=("s1",)),
}


@pytest.mark.parametrize("window", WINDOWS.values(), ids=WINDOWS.keys())
def test_each_ablation_changes_its_part_of_the_batch_and_no_other(tmp_path, make_dataset, window):
    lengths = [5, 7, 4]
    make_dataset(tmp_path / "x.zarr", lengths, actions=3)
    dataset = ZarrGameplayDataset(tmp_path / "x.zarr")
    samples = Samples(dataset, range(3), window)
    tier = make_tier(DatasetConfig(path="", cache="none"), samples, (24, 32), Progress(console=QUIET), one_device())

    def order() -> Iterator[np.ndarray]:
        return iter(np.split(np.arange(12), 3))

    intact = list(tier.batches(order()))
    every = jax.tree.map(lambda *parts: np.concatenate(parts), *map(jax.device_get, intact))
    counts = np.array(lengths) - window.action_shift
    first = np.repeat(np.cumsum(counts) - counts, counts)[:12]
    found = ablations(tier, samples)
    expected = ["blank_frames", "frozen_frames", "shuffled_frames"]
    expected += ["shuffled_frames_and_state"] * window.state + ["no_previous_actions"] * (window.action_history > 0)
    assert list(found) == expected
    everything = [jax.device_get(next(tier.batches(iter([np.array([i])])))) for i in range(len(samples))]
    for name, ablation in found.items():
        batches = [jax.device_get(batch) for batch in ablation.batches(order())]
        ablated = jax.tree.map(lambda *parts: np.concatenate(parts), *batches)
        assert ablated.keys() == every.keys()
        changed = {
            "shuffled_frames_and_state": {"frames", "state", "since_change"},
            "no_previous_actions": {"previous_actions"},
        }.get(name, {"frames"})
        for part in every.keys() - changed:
            np.testing.assert_array_equal(ablated[part], every[part])
        for part in changed:
            assert (ablated[part].shape, ablated[part].dtype) == (every[part].shape, every[part].dtype)
            if name in ("blank_frames", "no_previous_actions"):
                assert not ablated[part].any()
                assert every[part].any()
            elif name == "frozen_frames":
                np.testing.assert_array_equal(ablated[part], np.concatenate([everything[i][part] for i in first]))
            else:
                source = np.concatenate([everything[i][part] for i in ablation.source[:12]])
                np.testing.assert_array_equal(ablated[part], source)
                assert part == "since_change" or (source != every[part]).any()
        if name.startswith("shuffled"):
            assert sorted(ablation.source) == list(range(len(samples)))


# --- the rule ----------------------------------------------------------------------------------


@pytest.mark.parametrize("episodes", [15, 3])
def test_the_interval_is_that_of_scipy(episodes):
    """Episodes are resampled where there are ten or more, otherwise frames."""
    rng = np.random.default_rng(0)
    episode = np.repeat(np.arange(episodes) * 7, rng.integers(20, 90, episodes))
    values = rng.choice([-1, 0, 1], len(episode), p=[0.2, 0.3, 0.5])
    values[episode % 2 == 0] = np.abs(values[episode % 2 == 0])  # episodes differ
    ours = mean_gain(values, episode)
    assert ours.difference == pytest.approx(values.mean())
    sums, counts = values, np.ones(len(values))
    if episodes == 15:
        sums = np.array([values[episode == e].sum() for e in np.unique(episode)])
        counts = np.unique(episode, return_counts=True)[1]

    def mean(s: np.ndarray, n: np.ndarray, axis: int) -> np.ndarray:
        return s.sum(axis=axis) / n.sum(axis=axis)

    options = {"paired": True, "n_resamples": 5000, "method": "percentile", "rng": np.random.default_rng(1)}
    theirs = scipy.stats.bootstrap((sums, counts), mean, **options).confidence_interval
    assert ours.ci95 == pytest.approx([theirs.low, theirs.high], abs=0.02)
    assert mean_gain(values[:0], episode[:0]) == Gain(None, None)


@pytest.mark.parametrize("episodes", [20, 4])
@pytest.mark.parametrize("shift", [0, 2])
def test_only_a_policy_that_repeats_is_a_copycat(episodes, shift):
    true = held_for_a_while(episodes, 1600 // episodes)
    actual, before = targets(true, shift), held_before_seen(true, shift)
    rng = np.random.default_rng(1)
    majority, noise = majority_actions(np.concatenate(true)), rng.random(actual.shape) < 0.1
    guesses = rng.permutation(actual)
    constant = np.broadcast_to(majority, actual.shape)

    def verdict(predicted: np.ndarray, shuffled: np.ndarray | None = None, name: str = "shuffled_frames") -> Diagnosis:
        ablated = {"blank_frames": predicted} | ({} if shuffled is None else {name: shuffled})
        actions = {what: Action.of(pressed) for what, pressed in ablated.items()}
        return diagnose(true, Action.of(predicted), majority, shift, actions)

    good, copied = verdict(actual ^ noise, guesses), verdict(before ^ noise, before ^ rng.permutation(noise))
    assert (good.copycat, good.reasons) == (False, [])
    matches = (actual ^ noise == actual).all(axis=1)
    assert good.unchanged_match == matches[(actual == before).all(axis=1)].mean()
    assert copied.copycat is True
    compared = [reason.partition(", ")[2].split(" in ")[0] for reason in copied.reasons]
    assert compared == ["the commonest combination", "itself with shuffled frames"]
    # Copying is found without ablations, and a policy that gains nothing from frames by ablations alone.
    assert len(verdict(before).reasons) == 1
    halfway = np.where(rng.random((len(actual), 1)) < 0.5, actual, before)
    (reason,) = verdict(halfway, halfway).reasons
    assert "itself with shuffled frames in" in reason
    assert "(difference +0.000, 95 % interval +0.000 to +0.000)" in reason
    # A policy that has learned nothing has copied nothing.
    assert verdict(constant, constant).copycat is False
    assert verdict(guesses, guesses).copycat is False
    # A policy that sees the state may do without its frames, not without both.
    kept = {"shuffled_frames": Action.of(actual), "shuffled_frames_and_state": Action.of(guesses)}
    assert diagnose(true, Action.of(actual), majority, shift, kept).copycat is False
    kept["shuffled_frames_and_state"] = Action.of(halfway)
    assert diagnose(true, Action.of(halfway), majority, shift, kept).copycat is True


def test_too_few_changes_say_nothing():
    true = [actions[:15] for actions in held_for_a_while(12, 80)]
    found = diagnose(true, Action.of(held_before_seen(true)), np.zeros(3, bool))
    assert found.copycat is False
    assert found.reasons[0].endswith("too few to tell a copycat, 100 are needed")
    frozen = diagnose([np.zeros((5, 3), bool)], Action.of(np.zeros((5, 3))), np.zeros(3, bool))
    assert frozen.gains["changes_over_majority"] == Gain(None, None)
    assert Diagnosis.from_dict(json.loads(json.dumps(frozen.to_dict(), allow_nan=False))) == frozen


# --- trained policies --------------------------------------------------------------------------


def write(path: Path, make_dataset, *, black: bool) -> None:
    """Episodes whose buttons are the channels that are bright; or with all frames black."""
    rows = held_for_a_while(12, 80)
    make_dataset(path, [len(r) for r in rows], size=(8, 8), rows=rows, actions=3, root_attributes={"keys": [*NAMES]})
    root = zarr.open_group(path)
    for i, actions in enumerate(rows):
        shape = (len(actions), 3, 8, 8)
        noise = np.random.default_rng(i).integers(0, 100, shape, np.uint8)
        array = root[f"episode_{i}"]["frames"].with_config({"write_empty_chunks": True})
        array[:] = np.zeros(shape, np.uint8) if black else noise + 120 * actions.astype(np.uint8)[..., None, None]


TEMPORAL = [
    *("dataset.history=2", "dataset.action_history=1", "model.conv_features=[4]", "model.conv_strides=[2]"),
    *("model.position_features=2", "model.features=16"),
]


def trained(folder: Path, data: Path, *overrides: str) -> Path:
    base = [o for o in settings(folder, data) if not o.startswith("model.")]
    small = ["dataset.frame_size=null", "training.batch_size=4", "training.num_epochs=3", "training.learning_rate=0.01"]
    small += ["logging.report=false", "evaluation.batch_size=256"]
    return train(load_config("configs/temporal_cnn.yaml", [*base, *small, *TEMPORAL, *overrides]), QUIET)


def diagnosis_of(run: Path, json_file: Path) -> tuple[Evaluation, str]:
    """The scores and what the screen shows."""
    screen = io.StringIO()
    console = Console(file=screen, width=80, color_system="standard", force_terminal=True)
    report = evaluate(run, console, json_file=json_file, diagnose=True, tolerance=1)
    assert Evaluation.from_dict(json.loads(json_file.read_text(encoding="utf-8"))) == report
    return report, screen.getvalue()


@pytest.mark.slow
def test_a_policy_trained_on_black_frames_and_previous_actions_is_a_copycat(tmp_path, make_dataset):
    write(tmp_path / "black.zarr", make_dataset, black=True)
    run = trained(tmp_path, tmp_path / "black.zarr", "model.action_dropout=0", "training.num_epochs=2")
    report, screen = diagnosis_of(run, tmp_path / "r.json")
    found, ablated = report.diagnosis, report.ablations
    assert found.copycat is True
    assert len(found.reasons) == 2
    assert found.unchanged_match > 0.7
    assert list(ablated) == ["blank_frames", "frozen_frames", "shuffled_frames", "no_previous_actions"]
    for name in ("blank_frames", "frozen_frames", "shuffled_frames"):
        assert vars(ablated[name]) == {column: getattr(report, column) for column in vars(ablated[name])}
    assert ablated["no_previous_actions"].exact_match < report.exact_match - 0.3
    within, exact = (part.onset.f1 for part in (report.events.within, report.events.exact))
    assert within > exact + 0.3  # one frame late
    assert "\x1b[33mThis policy seems to be a copycat" in screen
    assert "itself with shuffled frames in" in " ".join(screen.split())


@pytest.fixture(scope="module")
def looking(tmp_path_factory, make_dataset) -> Path:
    """The folder of a training on frames that show the buttons, and on previous actions."""
    folder = tmp_path_factory.mktemp("looking")
    write(folder / "x.zarr", make_dataset, black=False)
    trained(folder, folder / "x.zarr")
    return folder


def test_a_policy_that_looks_at_frames_and_previous_actions_is_no_copycat(looking, tmp_path):
    report, screen = diagnosis_of(looking / "c/temporal_cnn", tmp_path / "r.json")
    found, ablated = report.diagnosis, report.ablations
    assert (found.copycat, found.reasons) == (False, [])
    assert report.change_match > 0.5
    for name in ("blank_frames", "frozen_frames", "shuffled_frames"):
        assert ablated[name].change_match < report.change_match - 0.2
    assert "copycat" not in screen
    assert list(found.gains) == ["unchanged_over_majority", "changes_over_majority", "changes_over_shuffled_frames"]


def test_a_policy_is_diagnosed_without_ablations(looking):
    run = looking / "c/temporal_cnn"
    report = evaluate(run, QUIET)
    assert report.diagnosis.copycat is False
    assert list(report.diagnosis.gains) == ["unchanged_over_majority", "changes_over_majority"]
    assert report.ablations is None
    dataset = ZarrGameplayDataset(looking / "x.zarr")
    written = json.loads((looking / "l/temporal_cnn/evaluation.json").read_text())
    assert Evaluation.from_dict(written) == report  # what the training wrote in the end
    split = json.loads((next((run / "best").iterdir()) / "meta/metadata").read_text())
    true = [dataset.actions(e) for e in dataset.find(split["split"]["val"])]
    for name, (pressed, _) in baselines(true, np.asarray(split["majority"])).items():
        assert report.baselines[name].events.to_dict() == event_scores(true, pressed, NAMES, 3)
