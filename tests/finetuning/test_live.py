"""Windows are learned in: their state gives rewards and ends episodes, and the user's function starts them again."""

import json
import time
from contextlib import closing
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from scripted_person import screen
from toy_windows import ToyWindow, WalkingWindow
from untrained import save_run

from BC_training.common.action import Action
from BC_training.common.errors import UserError
from BC_training.common.preprocess import InputSpec, Window
from BC_training.common.schema import Config, DatasetConfig
from BC_training.common.settings.evaluation import EvaluationConfig, RolloutConfig
from BC_training.experiments.finetune import finetune
from BC_training.finetuning import live
from BC_training.finetuning.games import ParallelGames
from BC_training.finetuning.live import LiveOptions, open_game
from BC_training.finetuning.setup import load_config
from BC_training.models.pure_cnn.model import Config as PureCNNConfig
from BC_training.play.live.state import LATE_SECONDS
from BC_training.training import checkpoint

SIZE, GO, REST = (24, 32), Action.of([1]), Action.of([0])
OWN = """
def moved(before, after, reward):
    return 10 * (after["x"] - before["x"]), after["x"] > 3

def again(hold):
    while hold(0.05, "R")["x"] > 0:
        pass

def wrong(hold):
    hold(0.1, "jump")
"""


@pytest.fixture(scope="module", autouse=True)
def display():
    with screen():
        yield


@pytest.fixture
def walk():
    with closing(WalkingWindow("Walk")) as window:
        window.focus()
        yield window


@pytest.fixture
def own(tmp_path) -> Path:
    """A file with the user's functions."""
    (tmp_path / "own.py").write_text(OWN)
    return tmp_path / "own.py"


@pytest.fixture
def options(walk, own) -> LiveOptions:
    return LiveOptions(("D", "R"), (), walk.address, ("x",), f"{own}:moved", f"{own}:again")


@pytest.fixture
def game(options):
    with closing(open_game("window/Walk?fps=50", SIZE, options)) as env:
        yield env


def test_a_step_is_worth_what_the_function_makes_of_the_state_before_and_after(game):
    at = game.reset()[0]["state"]
    for number in range(40):
        before, (observation, reward, is_over, truncated, _) = at, game.step(Action.of([number % 4 < 2, 0]))
        at = observation["state"]
        assert reward == pytest.approx(10 * float(at[0] - before[0]), abs=1e-4)
        assert is_over == (at[0] > 3)
        assert not truncated
        assert observation["frame"].shape == (3, *SIZE)
    assert at[0] > 1


def test_an_episode_begins_where_the_users_function_brings_the_game(game, walk):
    game.reset()
    is_over = False
    while not is_over:
        is_over = game.step(Action.of([1, 0]))[2]
    assert walk.at > 3
    walk.pressed.clear()
    observation, _ = game.reset()
    assert observation["state"].tolist() == [0]
    assert walk.pressed[0] == "r"


def test_keys_are_released_and_the_state_is_fresh_after_a_look(game, walk):
    game.reset()
    for _ in range(10):
        game.step(Action.of([1, 0]))
    game.look()
    time.sleep(0.1)
    rested = walk.at
    time.sleep(0.1)
    assert walk.at == rested
    assert game.look()[0]["state"] == pytest.approx([rested])
    assert game.step(Action.of([0, 0]))[1] == 0  # what happened before the look is nobody's


def test_a_window_without_the_focus_is_waited_for(game, walk):
    game.reset()
    with closing(ToyWindow("Other")) as other:
        other.focus()
        _, reward, is_over, _, info = game.step(Action.of([1, 0]))
        assert (reward, is_over, info["focused"]) == (0, False, False)
        assert walk.at == 0


def test_games_wait_for_the_focus_and_their_score_is_their_reward(walk, options):
    sizes = {"recorded_size": SIZE, "model_size": SIZE, "processes": 2, "first_seed": 0}
    with ParallelGames(["window/Walk?fps=50"], **sizes, reward=options.reward, live=options) as games:
        games.start()
        with closing(ToyWindow("Other")) as other:
            other.focus()
            assert games.step([Action.of([1, 0])]).waits
        walk.focus()
        rewards, finished = [], []
        while not finished:
            shown = games.step([Action.of([1, 0])])
            assert not shown.waits
            rewards.append(shown.rewards[0])
            finished = shown.finished
        assert finished[0].score == pytest.approx(sum(rewards), rel=1e-5)
        assert finished[0].score > 30
        assert finished[0].frames == len(rewards)
        assert shown.terminated[0]
        assert shown.states[0] == [0]


def test_a_state_that_nobody_sends_is_one_line(game, walk, options, monkeypatch):
    monkeypatch.setattr(live, "_PATIENCE", 0.3)
    game.reset()
    game.step(Action.of([1, 0]))
    walk.be_silent()
    time.sleep(LATE_SECONDS)
    with pytest.raises(UserError, match=f"nobody sends x to {options.state}: start the program that does"):
        game.step(Action.of([1, 0]))
    rested = walk.at
    time.sleep(0.1)
    assert walk.at == rested


def test_a_restart_that_cannot_be_is_one_line(walk, options, own, monkeypatch):
    monkeypatch.setattr(live, "_PATIENCE", 0.3)
    wrong = options._replace(restart=f"{own}:wrong")
    with (
        closing(open_game("window/Walk", SIZE, wrong)) as game,
        pytest.raises(UserError, match="unknown button"),
    ):
        game.reset()
    with closing(open_game("window/Walk", SIZE, options)) as game, closing(ToyWindow("Other")) as other:
        other.focus()
        with pytest.raises(UserError, match="has no focus while it is started again: click into it"):
            game.reset()
    with pytest.raises(UserError, match=r"finetune.restart=.*moved cannot be called as moved\(hold\)"):
        open_game("window/Walk", SIZE, options._replace(restart=f"{own}:moved"))


@pytest.fixture
def clone(tmp_path) -> Path:
    """An untrained policy of the window's keys."""
    config = Config(DatasetConfig(path="unused"), PureCNNConfig(name="pure_cnn"))
    return save_run(tmp_path / "clone", config, InputSpec(("D", "R"), (), SIZE, SIZE, 50.0, Window(2)))


def settings(folder: Path, clone: Path, walk: WalkingWindow, *overrides: str) -> list[str]:
    own = folder / "own.py"
    of_window = ["finetune.game=window/Walk?fps=50", f"finetune.state={walk.address}", "finetune.state_names=[x]"]
    functions = [f"finetune.reward={own}:moved", f"finetune.restart={own}:again"]
    places = [f"finetune.from={clone}", f"training.checkpoint_dir={folder}/c", f"logging.log_dir={folder}/l"]
    sizes = ["finetune.games=1", "finetune.horizon=32", "finetune.steps=96", "finetune.value_warmup=1"]
    return [*of_window, *functions, *places, *sizes, "logging.wandb.enabled=false", *overrides]


def test_a_policy_learns_in_a_window(walk, own, clone, tmp_path):
    (tmp_path / "x.yaml").write_text("")
    screen = StringIO()
    finetune(load_config(tmp_path / "x.yaml", settings(tmp_path, clone, walk)), Console(file=screen, width=200))
    assert "it plays while the window has the focus" in screen.getvalue()
    found = [*map(json.loads, (tmp_path / "l/x/metrics.jsonl").read_text().splitlines())]
    rows = [row for row in found if row["kind"] == "epoch"]
    assert [row["step"] for row in rows] == [32, 64, 96]
    assert rows[-1]["kl"] > 0
    assert checkpoint.find(tmp_path / "c/x").name == "96"
    assert walk.pressed
    rested = walk.at
    time.sleep(0.1)
    assert walk.at == rested


@pytest.mark.slow
def test_a_policy_learns_to_hold_the_key_that_is_worth_something(walk, own, clone, tmp_path):
    (tmp_path / "x.yaml").write_text("")
    fast = [
        "finetune.game=window/Walk?fps=20",
        "finetune.horizon=64",
        "finetune.steps=1536",
        "finetune.learning_rate=0.002",
        "finetune.kl=0",
    ]
    config = load_config(tmp_path / "x.yaml", settings(tmp_path, clone, walk, *fast))
    finetune(config, Console(file=StringIO()))
    found = [*map(json.loads, (tmp_path / "l/x/metrics.jsonl").read_text().splitlines())]
    lengths = [row["length"] for row in found if row["kind"] == "epoch" and "length" in row]
    assert lengths[-1] < 12  # 7 steps with the key held all the time


def test_nobody_plays_in_a_window_that_only_the_clone_names(tmp_path):
    evaluation = EvaluationConfig(rollout=RolloutConfig(game="window/Walk"))
    config = Config(DatasetConfig(path="unused"), PureCNNConfig(name="pure_cnn"), evaluation=evaluation)
    clone = save_run(tmp_path / "clone", config, InputSpec(("D", "R"), (), SIZE, SIZE, 50.0))
    (tmp_path / "x.yaml").write_text("")
    with pytest.raises(UserError, match=r"a window of the user's: finetune\.game=window/Walk plays there"):
        load_config(tmp_path / "x.yaml", [f"finetune.from={clone}"])


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("finetune.games=2", "finetune.games=2 is out of range: 1, as there is one window"),
        ("finetune.reward=null", "a window and needs finetune.state=HOST:PORT and finetune.reward"),
        ("finetune.state=null", "a window and needs finetune.state=HOST:PORT and finetune.reward"),
        ("finetune.state_names=[]", r"finetune.state_names=\[NAME, ...\] is missing"),
        ("finetune.game=gym/CartPole-v1", "finetune.state is for windows, and gym/CartPole-v1 is none"),
        ("evaluation.rollout={every_n_epochs: 1}", "is not played for a score"),
        ("finetune.game=window/Walk?region=0,0,9", "region"),
    ],
)
def test_what_a_window_cannot_do_is_one_line(walk, own, clone, tmp_path, override, said):
    (tmp_path / "x.yaml").write_text("")
    with pytest.raises(UserError, match=said) as caught:
        finetune(load_config(tmp_path / "x.yaml", settings(tmp_path, clone, walk, override)), Console(file=StringIO()))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "c").exists()
    assert not walk.pressed
