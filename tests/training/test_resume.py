import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import pytest
import zarr
from dataset_files import edit_json, flip_bit, user_error
from rich.console import Console
from untrained import save

from BC_training.common.config import from_dict, to_dict
from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.preprocess import InputSpec
from BC_training.common.schema import Config
from BC_training.common.settings.state import StateConfig
from BC_training.common.state import StateFeatures
from BC_training.training import checkpoint
from BC_training.training.checkpoint import Delivery
from BC_training.training.checkpoint_writer import CheckpointWriter
from BC_training.training.progress import TrainingProgress
from BC_training.training.resume import Start, find_start, fingerprint
from BC_training.training.run_folder import lock_run
from BC_training.training.train_state import TrainState

# --- the dataset's fingerprint -------------------------------------------------------------

LENGTHS = (5, 7, 6)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory, make_dataset) -> Path:
    path = tmp_path_factory.mktemp("recorded") / "data.zarr"
    make_dataset(path, LENGTHS, actions=3, state=2, size=(8, 8))
    return path


@pytest.fixture
def data(tmp_path, recorded) -> Path:
    """A copy to change, elsewhere and under another name."""
    return shutil.copytree(recorded, tmp_path / "elsewhere" / "copy.zarr")


def fingerprint_of(path: Path, **options: Any) -> str:
    return fingerprint(ZarrGameplayDataset(path, **options))


def test_the_fingerprint_does_not_depend_on_the_place(recorded, data):
    assert fingerprint_of(data) == fingerprint_of(recorded)
    for file in data.rglob("*"):
        os.utime(file, (0, 0))
    assert fingerprint_of(data) == fingerprint_of(recorded)


@pytest.mark.parametrize(("array", "index"), [("actions", (6, 2)), ("state", (0, 1)), ("frames", (3, 2, 7, 7))])
def test_one_value_changes_the_fingerprint(recorded, data, array, index):
    """The frame is one that is sampled: the middle one of an episode."""
    stored: Any = zarr.open_group(data)[f"episode_1/{array}"]
    stored[index] = ~stored[index] if array == "actions" else stored[index] + 1
    assert fingerprint_of(data) != fingerprint_of(recorded)


def test_the_episodes_change_the_fingerprint(recorded, data):
    found = {fingerprint_of(recorded)}
    shutil.copytree(data / "episode_0", data / "episode_3")
    found.add(fingerprint_of(data))
    (data / "episode_3").rename(data / "episode_4")
    found.add(fingerprint_of(data))
    shutil.rmtree(data / "episode_4")
    assert fingerprint_of(data) in found
    shutil.rmtree(data / "episode_2")
    found.add(fingerprint_of(data))
    assert len(found) == 4


def test_a_longer_episode_changes_the_fingerprint(tmp_path, make_dataset):
    found = set()
    for length in (4, 5):
        rows = [[[False] * 2] * length]  # so that only the length differs
        make_dataset(tmp_path / f"{length}.zarr", [length], actions=2, state=0, size=(8, 8), rows=rows)
        found.add(fingerprint_of(tmp_path / f"{length}.zarr"))
    assert len(found) == 2


def test_names_and_choices_of_buttons_change_the_fingerprint(recorded, data):
    found = {
        fingerprint_of(recorded),
        fingerprint_of(recorded, channel_order="bgr"),
        fingerprint_of(recorded, actions=["a0", "a1"]),
        fingerprint_of(recorded, actions=["a1", "a0", "a2"]),
    }
    for key, names in (("keys", ["x", "a1", "a2"]), ("attributes", ["x", "s1"])):
        root = zarr.open_group(data, mode="r+")
        before = root.attrs[key]
        root.attrs[key] = names
        found.add(fingerprint_of(data))
        root.attrs[key] = before
    assert len(found) == 6
    assert fingerprint_of(data) in found


# --- runs to go on from --------------------------------------------------------------------

PRINT = "0123456789abcdef"
PROGRESS = TrainingProgress(step=30, epochs=3, best_score=0.5, best_step=20, log_bytes=77, wandb_id="w")


@pytest.fixture(scope="module")
def inputs(make_inputs) -> InputSpec:
    return make_inputs()


@pytest.fixture(scope="module")
def template(tmp_path_factory, make_config, inputs) -> Path:
    """checkpoints/run with steps 20 and 30, of which 20 was the best, and logs/run. Tests do not change it."""
    folder = tmp_path_factory.mktemp("template")
    config = config_in(folder, make_config())
    run = folder / "checkpoints" / "run"
    with lock_run(run), CheckpointWriter(run, 2, Console(quiet=True)) as writer:
        for step in (20, 30):
            state = TrainState(jnp.int32(step), {"w": jnp.full(3, step)}, {"m": jnp.ones(2)}, {"mu": jnp.ones(3)})
            progress, delivery = replace(PROGRESS, step=step, epochs=step // 10), Delivery("tpu", "none", 1)
            changes = {"epoch": step // 10, "fingerprint": PRINT, "progress": progress, "delivery": delivery}
            save(writer, state, step == 20, config=config, inputs=inputs, **changes)
        writer.finish()
    logs = folder / "logs" / "run"
    logs.mkdir(parents=True)
    (logs / "metrics.jsonl").write_text('{"step": 30}\n')
    return folder


def config_in(folder: Path, config: Config, name: str = "run", **training: Any) -> Config:
    return replace(
        config,
        training=replace(config.training, checkpoint_dir=str(folder / "checkpoints"), **training),
        logging=replace(config.logging, log_dir=str(folder / "logs"), run_name=name),
    )


@pytest.fixture
def home(tmp_path, template) -> Path:
    """A copy to go on from and to damage."""
    for folder in ("checkpoints", "logs"):
        shutil.copytree(template / folder, tmp_path / folder)
    for step in (tmp_path / "checkpoints" / "run").glob("*/*"):
        change_meta(step, lambda meta: meta["config"]["logging"].update(log_dir=str(tmp_path / "logs")))
    return tmp_path


def change_meta(step: Path, edit: Callable[[dict[str, Any]], object]) -> None:
    """Changes the metadata and their checksum."""
    edit_json(step / "meta" / "metadata", edit)
    checkpoint.write_checksums(step)


def damage(step: Path) -> None:
    """Flips a bit of the optimizer's arrays, which reading the metadata does not find."""
    flip_bit(next(f for f in sorted((step / "optimizer").rglob("*")) if f.is_file() and f.parent.name == "d"))


def empty(step: Path) -> None:
    shutil.rmtree(step)
    step.mkdir()


def listing(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


@pytest.fixture
def start(home, make_config, inputs) -> Callable[..., tuple[Start, list[str]]]:
    """Finds the start of the run and returns it with the lines that were printed."""

    def find(
        overrides: dict[str, Any] | None = None,
        *,
        name: str = "run",
        inputs: InputSpec = inputs,
        fingerprint: str = PRINT,
        **training: Any,
    ) -> tuple[Start, list[str]]:
        raw = to_dict(config_in(home, make_config(), name, **training))
        for key, value in (overrides or {}).items():
            *sections, last = key.split(".")
            section = raw
            for part in sections:
                section = section[part]
            section[last] = value
        console = Console(file=StringIO(), width=1000)
        found = find_start(from_dict(raw, "test"), inputs, fingerprint, console)
        assert isinstance(console.file, StringIO)
        return found, console.file.getvalue().splitlines()

    return find


@pytest.fixture
def refusal(home, start) -> Callable[..., str]:
    """The one line of a refusal, which changes nothing on the disk."""

    def message(*args: Any, **options: Any) -> str:
        before = listing(home)
        refused = user_error(start, *args, **options)
        assert listing(home) == before
        return refused

    return message


@pytest.fixture
def run(home) -> Path:
    return home / "checkpoints" / "run"


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


# --- auto ----------------------------------------------------------------------------------


def test_where_there_is_no_checkpoint_a_run_begins(start, home):
    assert start(name="new") == (Start(None, TrainingProgress()), [])
    assert names(home / "checkpoints") == ["run"]
    (home / "checkpoints" / "new" / "last").mkdir(parents=True)
    assert start(name="new") == (Start(None, TrainingProgress()), [])


def test_a_run_goes_on_from_its_newest_checkpoint(start, run, home):
    before = listing(home)
    assert start() == (Start(run / "last" / "30", PROGRESS), [])
    assert listing(home) == before


def test_a_run_goes_on_from_the_best_checkpoint_where_that_is_newer(start, run):
    shutil.rmtree(run / "last" / "30")
    shutil.rmtree(run / "last" / "20")
    assert start() == (Start(run / "best" / "20", replace(PROGRESS, step=20, epochs=2)), [])
    assert listing(run / "last" / "20") == listing(run / "best" / "20")  # as if it had not been killed in between


def test_a_damaged_newest_checkpoint_is_replaced_by_the_best_of_the_same_step(start, run):
    shutil.rmtree(run / "last" / "30")
    damage(run / "last" / "20")
    found, lines = start()
    assert found.step_folder == run / "best" / "20"
    assert lines == [f"{run}/last/20 is a damaged checkpoint: {run}/best/20 is used instead"]
    assert names(run / "last") == ["20", "damaged-20"]
    checkpoint.verify(run / "last" / "20")
    assert start() == (found, [])


def test_a_start_is_read_back_from_json(run):
    for start in (Start(None, TrainingProgress(best_score=-math.inf)), Start(run / "last" / "30", PROGRESS)):
        assert Start.from_dict(json.loads(json.dumps(start.to_dict()))) == start


@pytest.mark.parametrize(("lost", "part"), [(damage, "optimizer/"), (empty, "it has no checksums.json")])
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_is_used(start, run, lost, part):
    lost(run / "last" / "30")
    found, (line,) = start()
    assert found == Start(run / "best" / "20", replace(PROGRESS, step=20, epochs=2))
    assert f"{run}/last/30 is a damaged checkpoint ({part}" in line
    assert line.endswith("step 20 is used instead")
    assert names(run / "last") == ["20", "damaged-30"]
    assert start() == (found, [])  # it is not named again


def test_a_run_whose_checkpoints_are_all_damaged_is_refused(refusal, run):
    for step in run.glob("*/*"):
        damage(step)
    message = refusal()
    assert f"every checkpoint of {run} is damaged (" in message
    assert "training.resume=never" in message


def test_a_checkpoint_of_a_newer_format_is_refused(refusal, run):
    change_meta(run / "last" / "30", lambda meta: meta.update(format_version=checkpoint.FORMAT_VERSION + 1))
    assert f"{run}/last/30 was written by a newer version" in refusal()


def test_logs_without_checkpoints_are_kept(start, run, home):
    shutil.rmtree(run)
    found, lines = start()
    assert found == Start(None, TrainingProgress())
    assert lines == ["'run' has logs but no checkpoints: they are kept as 'run.1'"]
    assert (home / "logs" / "run.1" / "metrics.jsonl").read_text() == '{"step": 30}\n'
    assert not (home / "logs" / "run").exists()


def test_a_run_that_never_resumes_keeps_the_earlier_one(start, run, home):
    before = listing(run)
    for number in (1, 2):
        found, lines = start(resume="never")
        assert found == Start(None, TrainingProgress())
        assert lines == [f"the earlier run 'run' is kept as 'run.{number}'"]
        assert not run.exists()
        assert not (home / "logs" / "run").exists()
        run.mkdir()
    assert listing(home / "checkpoints" / "run.1") == before
    assert start(name="new", resume="never") == (Start(None, TrainingProgress()), [])


def test_a_run_in_training_is_refused(refusal, run):
    with lock_run(run):
        for resume in ("auto", "never", str(run / "last" / "20")):
            assert "another training is running" in refusal(resume=resume)


# --- the best ------------------------------------------------------------------------------


@pytest.mark.parametrize("lost", [damage, shutil.rmtree])
def test_a_lost_best_checkpoint_is_forgotten(start, run, lost):
    lost(run / "best" / "20")
    found, (line,) = start()
    assert found == Start(run / "last" / "30", replace(PROGRESS, best_score=None, best_step=None))
    assert f"the best checkpoint, {run}/best/20, is missing or damaged" in line
    assert names(run / "best") == (["damaged-20"] if lost == damage else [])


@pytest.mark.parametrize("lost", [damage, shutil.rmtree])
def test_a_lost_best_checkpoint_is_copied_from_the_newest_if_that_is_the_same_step(start, run, lost):
    shutil.rmtree(run / "last" / "30")
    lost(run / "best" / "20")
    found, lines = start()
    assert found == Start(run / "last" / "20", replace(PROGRESS, step=20, epochs=2))
    assert len(lines) == (lost == damage)
    checkpoint.verify(run / "best" / "20")
    assert listing(run / "best" / "20") == listing(run / "last" / "20")


def test_scores_of_another_metric_are_not_compared(start):
    found, _ = start({"evaluation.best_metric": "loss"}, resume_changed=True)
    assert (found.progress.best_score, found.progress.best_step) == (None, None)


# --- a path --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("origin", "step", "best"),
    [("run", 30, ["20"]), ("run/last/30", 30, ["20"]), ("run/last/20", 20, ["20"]), ("run/best/20", 20, ["20"])],
)
def test_another_run_begins_from_a_path(start, run, home, origin, step, best):
    before = listing(run)
    found, lines = start(name="new", resume=str(home / "checkpoints" / origin))
    new = home / "checkpoints" / "new"
    assert found == Start(new / "last" / str(step), replace(PROGRESS, step=step, epochs=step // 10, wandb_id=None))
    assert lines == []
    assert names(new / "last") == [str(step)]
    assert names(new / "best") == best
    for folder in new.glob("*/*"):
        checkpoint.verify(folder)
    assert (home / "logs" / "new" / "metrics.jsonl").read_text() == '{"step": 30}\n'
    assert listing(run) == before


def test_a_run_begins_from_a_step_under_another_name(start, run, home):
    shutil.copytree(run / "last" / "20", home / "alone")
    new = home / "checkpoints" / "new"
    for _ in range(2):  # the second time the run goes on from its own checkpoints
        found, _ = start(name="new", resume=str(home / "alone"))
        assert found.progress.step == 20
        assert (names(new / "last"), names(new / "best")) == (["20"], ["20"])


def test_a_damaged_newest_checkpoint_of_another_run_is_named_and_stays(start, run):
    damage(run / "last" / "30")
    before = listing(run)
    found, lines = start(name="new", resume=str(run))
    assert found.progress.step == 20
    assert "step 20 is used instead" in lines[0]
    assert listing(run) == before


def test_a_run_begun_from_a_path_goes_on_from_its_own_checkpoints(start, run, home):
    start(name="new", resume=str(run))
    new = home / "checkpoints" / "new"
    (new / "last" / "30").rename(new / "last" / "31")  # as if a step had been taken
    change_meta(new / "last" / "31", lambda meta: meta["progress"].update(step=31))
    shutil.rmtree(run)  # which is no longer needed
    found, lines = start(name="new", resume=str(run))
    assert found == Start(new / "last" / "31", replace(PROGRESS, step=31))
    assert lines == []
    assert names(home / "checkpoints") == ["new"]
    assert start(name="new")[0] == found


def test_a_run_begins_again_from_another_path(start, run, home):
    start(name="new", resume=str(run))
    found, lines = start(name="new", resume=str(run / "last" / "20"))
    assert found.progress.step == 20
    assert lines == ["the earlier run 'new' is kept as 'new.1'"]
    assert names(home / "checkpoints") == ["new", "new.1", "run"]


@pytest.mark.parametrize(
    ("step", "is_relative"), [("", True), ("last/20", False), ("last/30", False), ("best/20", True)]
)
def test_a_run_goes_back_to_one_of_its_own_checkpoints(start, run, home, step, is_relative, monkeypatch):
    monkeypatch.chdir(home)
    before = listing(run)
    origin = Path("checkpoints/run" if is_relative else run) / step
    found, lines = start(resume=str(origin))
    number = 20 if origin.name == "20" else 30
    expected = replace(PROGRESS, step=number, epochs=number // 10, wandb_id=None)
    assert found == Start(run / "last" / str(number), expected)
    assert lines == ["the earlier run 'run' is kept as 'run.1'"]
    assert (names(run / "last"), names(run / "best")) == ([str(number)], ["20"])
    assert listing(home / "checkpoints" / "run.1") == before
    assert (home / "logs" / "run" / "metrics.jsonl").exists()
    assert (home / "logs" / "run.1" / "metrics.jsonl").exists()
    again, lines = start(resume=str(origin))
    assert (replace(again.progress, wandb_id=None), lines) == (found.progress, [])
    assert names(home / "checkpoints") == ["run", "run.1"]


def test_a_path_that_is_no_checkpoint_is_refused(refusal, home, run):
    (home / "empty").mkdir()
    for origin in (home / "nothing", home / "empty", run / "last" / "30" / "meta", home / "logs" / "run"):
        for name in ("run", "new"):
            assert f"training.resume={origin} is not a run" in refusal(name=name, resume=str(origin))


def test_a_path_to_a_damaged_checkpoint_or_another_training_is_refused(refusal, run):
    for name in ("run", "new"):
        message = refusal({"training.batch_size": 32}, name=name, resume=str(run / "last" / "20"))
        assert "training.batch_size 64 -> 32" in message
    damage(run / "last" / "20")
    for name in ("run", "new"):
        assert "is a damaged checkpoint" in refusal(name=name, resume=str(run / "last" / "20"))


# --- other settings ------------------------------------------------------------------------


def test_settings_that_do_not_affect_the_mathematics_may_change(start):
    """All of them are listed in the tests of the rules of settings."""
    changes = {"dataset.path": "elsewhere", "dataset.cache": "none", "training.keep_last": 7}
    changes |= {"training.steps_per_dispatch": 4, "training.profile_steps": [1, 2], "logging.wandb.tags": ["x"]}
    for key in ("dataset.record", "evaluation.rollout"):
        changes[key] = {"game": "doom/basic"}
    assert start(changes)[0].progress == PROGRESS


def test_play_that_chooses_the_best_checkpoint_needs_resume_changed(start, refusal):
    by_play = {"evaluation.best_metric": "rollout", "evaluation.rollout": {"game": "doom/basic", "every_n_epochs": 2}}
    message = refusal(by_play)
    assert "evaluation.rollout.every_n_epochs null -> 2" in message
    assert "evaluation.rollout.validation_seed null -> 1000" in message
    assert "evaluation.rollout.video" not in message
    assert start(by_play, resume_changed=True)[0].progress.step == PROGRESS.step


@pytest.mark.parametrize(
    ("key", "value", "difference"),
    [
        ("training.num_epochs", 20, "training.num_epochs 10 -> 20"),  # with cosine the rate depends on it
        ("training.early_stopping", {"patience": 3}, "training.early_stopping.patience null -> 3"),
        ("evaluation.every_n_epochs", 2, "evaluation.every_n_epochs 1 -> 2"),
    ],
)
def test_settings_that_affect_the_mathematics_need_resume_changed(start, refusal, key, value, difference):
    message = refusal({key: value})
    assert difference in message
    assert "training.resume_changed=true" in message
    assert "resume_changed " not in message.replace("training.resume_changed=true", "")
    assert start({key: value}, resume_changed=True)[0].progress == PROGRESS


@pytest.mark.parametrize(
    ("key", "value", "difference"),
    [
        ("evaluation.threshold", 0.25, "evaluation.threshold 0.5 -> 0.25"),
        ("evaluation.thresholds", {"a1": 0.25}, "evaluation.thresholds.a1 null -> 0.25"),
        ("evaluation.hysteresis", 0.1, "evaluation.hysteresis 0.0 -> 0.1"),
        ("evaluation.exclusive", [["a0", "a1"]], "evaluation.exclusive [] -> [[a0, a1]]"),
    ],
)
def test_scores_of_other_buttons_are_not_compared(start, refusal, key, value, difference):
    assert difference in refusal({key: value})
    found, _ = start({key: value}, resume_changed=True)
    assert found.progress == replace(PROGRESS, best_score=None, best_step=None)


def test_offline_scores_do_not_depend_on_the_temperature(start):
    assert start({"evaluation.temperature": 2.0}, resume_changed=True)[0].progress == PROGRESS


@pytest.mark.parametrize(
    ("key", "value", "difference"),
    [
        ("model.dense_features", [32], "model.dense_features [16] -> [32]"),
        ("training.ema_decay", 0.5, "training.ema_decay null -> 0.5"),
        ("system.seed", 1, "system.seed 0 -> 1"),
        ("dataset.frame_size", [12, 16], "dataset.frame_size null -> [12, 16]"),
        ("dataset.split", {"train": 0.5, "val": 0.5, "test": 0.0}, "dataset.split.train 0.9 -> 0.5"),
    ],
)
def test_another_training_is_refused_even_with_resume_changed(refusal, key, value, difference):
    for resume_changed in (False, True):
        changes = {key: value, "training.learning_rate": 0.5}
        message = refusal(changes, resume_changed=resume_changed)
        assert difference in message
        assert "training.learning_rate" not in message  # setting that back would not help
        assert "resume_changed" not in message
        assert "logging.run_name" in message


def test_with_a_constant_rate_the_number_of_epochs_may_change(start, refusal, run):
    for step in run.glob("*/*"):
        change_meta(step, lambda meta: meta["config"]["training"].update(schedule="constant"))
    assert start({"training.schedule": "constant", "training.num_epochs": 20})[0].progress == PROGRESS
    assert "training.schedule constant -> cosine" in refusal({"training.num_epochs": 20})


def test_other_inputs_are_refused(refusal, inputs):
    for change, difference in (
        ({"action_names": ("a0", "jump", "a2")}, "action_names [a0, a1, a2] -> [a0, jump, a2]"),
        ({"recorded_size": (48, 64)}, "recorded_size [24, 32] -> [48, 64]"),
        ({"frame_size": (48, 64)}, "frame_size [24, 32] -> [48, 64]"),
        ({"state_names": ("health",)}, "state_names [] -> [health]"),
        ({"fps": 35.0}, "fps 17.0 -> 35.0"),
    ):
        assert difference in refusal(inputs=replace(inputs, **change), resume_changed=True)


def test_values_fitted_to_the_state_are_not_compared(start, inputs):
    """Another machine may round it to another last bit."""
    fitted = StateFeatures(StateConfig(standardized=("health",)), (), (1.0,), (2.0,))
    assert start(inputs=replace(inputs, state=fitted))[0].progress == PROGRESS


def test_another_dataset_is_refused(refusal):
    message = refusal(fingerprint="another", resume_changed=True)
    assert f"the dataset unused has changed, its fingerprint {PRINT} -> another" in message
