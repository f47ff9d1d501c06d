"""Names and paths whose characters mean something to shells, patterns, YAML, URLs or a screen."""

import os
from io import StringIO
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import trainings
import zarr
from dataset_files import user_error
from rich.console import Console
from untrained import save

from BC_training import __main__ as main
from BC_training.command_line import make_console
from BC_training.common.config import load_config
from BC_training.common.errors import UserError
from BC_training.common.files import expand
from BC_training.data import tier_choice
from BC_training.evaluation.evaluate import evaluate
from BC_training.inference import Policy
from BC_training.reports.run.report import report
from BC_training.train import train
from BC_training.training import checkpoint
from BC_training.training.checkpoint import Delivery
from BC_training.training.checkpoint_writer import CheckpointWriter
from BC_training.training.run_folder import lock_run
from BC_training.training.train_state import TrainState
from BC_training.videos.episode import film_episode

NAMES = ["v[2]", "[!a]", "a*b", "a?b", "{a,b}", "a#b", "a%41", "a:b", "a b", "~a", "$A", "a'b\"", "攻撃", "a...", "-a"]
NAMES.append("x" * 200)
ALL = "v[2] [!a] *? {a,b} #%41 a:b ~ $A '\" 攻撃 :bug: [b]..."
CONSTANT = ["training.schedule=constant", "training.warmup_steps=0"]


@pytest.mark.parametrize("name", NAMES)
def test_a_checkpoint_in_any_folder_is_read_back(tmp_path, name):
    (tmp_path / "v2").mkdir()  # what the first name means as a pattern
    run = tmp_path / name / name
    state = TrainState(jnp.int32(3), {"w": jnp.arange(6.0).reshape(2, 3)}, {}, {"count": jnp.int32(3)}, None)
    with lock_run(run), CheckpointWriter(run, 1, Console(file=StringIO())) as writer:
        save(writer, state)
        writer.finish()
    checkpoint.verify(run / "best" / "3")
    np.testing.assert_array_equal(checkpoint.read_state(run / "best" / "3", state).params["w"], state.params["w"])


def test_a_folder_whose_name_tensorstore_misreads_is_refused_at_once(tmp_path):
    with pytest.raises(UserError, match="takes the"):
        lock_run(tmp_path / "a\\b" / "run").__enter__()
    assert not list(tmp_path.iterdir())


def test_a_training_with_odd_names_is_resumed_scored_shown_and_played(tmp_path, make_dataset, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = Path(ALL)
    folder.mkdir()
    make_dataset(folder / "x.zarr", [24, 24], actions=4)
    zarr.open_group(folder / "x.zarr").attrs["keys"] = ["on", "[b]jump[/b]", "прыжок", "攻撃"]
    run = folder / "c" / ALL
    for epochs in (1, 2):
        screen = make_console()
        screen.file = StringIO()
        screen.width = 400
        changes = [f"logging.run_name={ALL}", f"training.num_epochs={epochs}", *CONSTANT]
        changes.append("evaluation.rollout.episodes=2")  # whose game follows from the dataset, which names none
        train(load_config("configs/pure_cnn.yaml", trainings.settings(folder, folder / "x.zarr", *changes)), screen)
        assert f"{run}/best" in screen.file.getvalue()
        assert "[b]jump[/b]" in screen.file.getvalue()
        assert "📛" not in screen.file.getvalue()
    assert "going on after step" in screen.file.getvalue()
    assert "x.zarr is not played: its episodes do not name one game" in screen.file.getvalue()
    assert not (folder / "l" / ALL / "rollout.json").exists()
    assert evaluate(run, screen).split == "val"
    report(run, screen)
    assert Policy.load(run).act(np.zeros((3, 24, 32), np.uint8)).buttons.shape == (4,)
    film_episode(run, Path("a:b [1].mp4"), screen)
    assert "drawn as numbers: 4 for 攻撃\n" in screen.file.getvalue()
    assert Path("a:b [1].mp4").stat().st_size > 0


@pytest.mark.slow
def test_a_training_goes_on_with_the_tier_and_dispatches_it_had(tmp_path, make_dataset, monkeypatch):
    make_dataset(tmp_path / "x.zarr", [40, 40])
    settings = ["dataset.cache=auto", *CONSTANT, "training.steps_per_dispatch=2", "logging.report=false"]

    def run(folder: str, epochs: int) -> str:
        return trainings.run(tmp_path / folder, tmp_path / "x.zarr", *settings, f"training.num_epochs={epochs}")

    run("whole", 3)
    run("parts", 1)
    with monkeypatch.context() as patch:
        patch.setattr(tier_choice, "free_memory", lambda: 0)
        patch.setattr(tier_choice, "_DISK_SHARE", 0)
        patch.setattr(tier_choice.cache, "is_built", lambda *_: False)
        assert "dataset.cache=device, as before, has no room now: none is used" in run("parts", 2)
    run("parts", 3)  # for which the device would be chosen, had it no tier yet
    assert trainings.final_state(tmp_path / "parts") == trainings.final_state(tmp_path / "whole")
    last = checkpoint.read(tmp_path / "parts/c/pure_cnn/last")
    assert last.delivery == Delivery("cpu", "none", 2)


def test_a_tilde_is_the_home_folder(tmp_path, monkeypatch, make_dataset):
    home, here = tmp_path / "home", tmp_path / "here"
    here.mkdir()
    make_dataset(home / "x.zarr", [8, 8])
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(here)
    monkeypatch.setattr("sys.argv", ["BC_training", "analyze", "~/x.zarr", "--out=~/page.html", "--json", "~/x.json"])
    with pytest.raises(SystemExit) as end:
        main.main()
    assert end.value.code == 0
    assert {path.name for path in home.iterdir()} == {"x.zarr", "page.html", "x.json"}
    assert not list(here.iterdir())


def test_a_tilde_in_settings_is_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pure_cnn.yaml").write_text("dataset: {path: ~/d, cache_dir: ~/e}\ntraining: {checkpoint_dir: ~/c}\n")
    changes = ["logging.log_dir=~/l", "training.resume=~/r", "dataset.record={game: doom/basic, player: ~/p}"]
    config = load_config("~/pure_cnn.yaml", changes)
    assert config.dataset.record is not None
    found = [config.dataset.path, config.dataset.cache_dir, config.training.checkpoint_dir]
    found += [config.logging.log_dir, config.training.resume, config.dataset.record.player]
    assert found == [str(tmp_path / name) for name in "declrp"]
    assert load_config("~/pure_cnn.yaml", ["logging.run_name=~x"]).logging.run_name == "~x"


@pytest.mark.parametrize("path", ["~nobody-of-this-name/x", "a\0b", "a\udcff"])
def test_a_path_that_no_system_could_have_is_refused(path):
    user_error(expand, path)
    message = user_error(load_config, "configs/pure_cnn.yaml", {"dataset.path": path})
    assert message.startswith("config: dataset.path: ")


@pytest.mark.parametrize("name", ["x" * 201, "a\tb", "a\0b", "a\nb", "a\udcff", "a/b", "é" * 101])
def test_a_run_name_that_no_folder_can_have_is_refused(name):
    assert "logging.run_name" in user_error(load_config, "configs/pure_cnn.yaml", {"logging.run_name": name})


@pytest.mark.parametrize("inner", ["", "best"])
def test_a_folder_that_may_not_be_written_to_is_refused_before_the_first_step(tmp_path, monkeypatch, inner):
    (tmp_path / "best").mkdir()
    access, closed = os.access, tmp_path / inner
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != closed and access(path, mode))
    with pytest.raises(UserError, match=f"cannot write to the folder {closed}: see to its permissions"):
        lock_run(tmp_path).__enter__()


def test_the_console_prints_markup_as_text():
    console = make_console()
    console.file = StringIO()
    console.print("[red]a[/b] :bug: \\[c]")
    assert console.file.getvalue() == "[red]a[/b] :bug: \\[c]\n"
