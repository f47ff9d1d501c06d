"""Windows are learned in: their state gives rewards and ends episodes, and the user's function starts them again."""

import json
import time
from contextlib import closing
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from scripted_person import screen
from toy_windows import ToyWindow, WalkingWindow, wait_until
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
from BC_training.finetuning.playing import Playing
from BC_training.finetuning.setup import Setup, load_config
from BC_training.models.pure_cnn.model import Config as PureCNNConfig
from BC_training.play.live.state import LATE_SECONDS
from BC_training.training import checkpoint
from BC_training.training.progress import TrainingProgress
from BC_training.training.resume import Start

SIZE, GO, REST = (24, 32), Action.of([1, 0]), Action.of([0, 0])
OWN = """
def moved(before, after, reward):
    return reward + 10 * (after["x"] - before["x"]), after["x"] > 3

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


def play(game, action: Action) -> tuple:
    """The next step that is one, without its ``info``."""
    while True:
        *found, info = game.step(action)
        if not info["waits"]:
            return tuple(found)


def test_a_step_is_worth_what_the_function_makes_of_the_state_before_and_after(game):
    game.reset()
    at = play(game, REST)[0]["state"]
    for number in range(40):
        before, (observation, reward, is_over, truncated) = at, play(game, Action.of([number % 4 < 2, 0]))
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
        is_over = play(game, GO)[2]
    assert walk.at > 3
    walk.pressed.clear()
    game.reset()
    assert walk.pressed[0] == "r"
    assert play(game, REST)[0]["state"].tolist() == [0]


def test_a_restart_presses_keys_that_the_policy_has_not_and_lets_go(walk, options, own):
    (own.parent / "sleepy.py").write_text("import time\ndef again(hold):\n    hold(0.1, 'd')\n    time.sleep(0.3)\n")
    options = options._replace(buttons=("R",), restart=f"{own.parent}/sleepy.py:again")
    with closing(open_game("window/Walk?fps=50", SIZE, options)) as game:
        game.reset()
        assert walk.pressed == ["d"]
        assert 0 < walk.at < 3  # not held while it slept


def test_what_happens_until_a_look_does_not_count(game, walk):
    """Also where more was sent meanwhile than a socket holds."""
    game.reset()
    for _ in range(5):
        play(game, GO)
    game.hands.rest()
    wait_until(lambda: not walk.is_held)
    for _ in range(4):
        time.sleep(0.8)
        walk.at += 0.5
    game.look()
    walk.at += 0.5
    time.sleep(0.2)  # until that is sent
    observation, reward, is_over, _, info = game.step(GO)
    assert (reward, is_over, info["waits"]) == (0, False, True)
    assert observation["state"] == pytest.approx([walk.at])
    assert play(game, REST)[1] == 0


def test_a_state_of_before_a_look_is_none_of_now(game, walk):
    game.reset()
    play(game, REST)
    walk.be_silent()
    game.look()
    for _ in range(3):
        assert game.step(GO)[-1]["waits"]


def test_a_look_releases_all(game, walk):
    game.reset()
    for _ in range(5):
        play(game, GO)
    game.look()
    wait_until(lambda: not walk.is_held)


def test_a_window_without_the_focus_is_waited_for(game, walk):
    game.reset()
    play(game, REST)
    with closing(ToyWindow("Other")) as other:
        other.focus()
        walk.at = 2.0
        for _ in range(20):
            _, reward, is_over, _, info = game.step(GO)
            assert (reward, is_over, info["waits"]) == (0, False, True)
        assert walk.at == 2
    walk.focus()
    assert game.step(GO)[-1]["waits"]  # it was not seen yet
    assert play(game, REST)[1] == 0


def test_a_hidden_window_is_waited_for_and_a_closed_one_is_one_line(game, walk):
    game.reset()
    play(game, REST)
    walk.hide()
    assert game.step(GO)[-1]["waits"]
    walk.show()
    walk.focus()
    play(game, GO)
    walk.destroy()
    with pytest.raises(UserError, match="closed"):
        play(game, GO)


def test_a_state_that_stalls_is_waited_for(game, walk):
    game.reset()
    play(game, GO)
    walk.be_silent()
    time.sleep(LATE_SECONDS)
    assert game.step(GO)[-1]["waits"]
    walk.at = 2.0
    walk.be_silent(False)
    assert play(game, REST)[1] < 10  # the two that it made while silent are nobody's


def test_games_wait_for_the_focus_and_their_score_is_their_reward(walk, options):
    sizes = {"recorded_size": SIZE, "model_size": SIZE, "processes": 2, "first_seed": 0}
    with ParallelGames(["window/Walk?fps=50"], **sizes, reward=options.reward, live=options) as games:
        games.start()
        with closing(ToyWindow("Other")) as other:
            other.focus()
            assert games.step([GO]).waits
        walk.focus()
        rewards, finished = [], []
        while not finished:
            shown = games.step([GO])
            if shown.waits:
                continue
            rewards.append(shown.rewards[0])
            finished = shown.finished
        assert finished[0].score == pytest.approx(sum(rewards), rel=1e-5)
        assert finished[0].score > 30
        assert finished[0].frames == len(rewards)
        assert shown.terminated[0]


def test_a_state_that_nobody_sends_is_one_line(game, walk, options, monkeypatch):
    monkeypatch.setattr(live, "_PATIENCE", 0.3)
    game.reset()
    play(game, GO)
    walk.be_silent()
    with pytest.raises(UserError, match=f"nobody sends x to {options.state}: start the program that does"):
        wait_until(lambda: game.step(GO) is None)
    wait_until(lambda: not walk.is_held)


def test_a_restart_that_cannot_be_is_one_line(walk, options, own):
    wrong = options._replace(restart=f"{own}:wrong")
    with closing(open_game("window/Walk", SIZE, wrong)) as game, pytest.raises(UserError, match="unknown button"):
        game.reset()
    with pytest.raises(UserError, match=r"finetune.restart=.*moved cannot be called as moved\(hold\)"):
        open_game("window/Walk", SIZE, options._replace(restart=f"{own}:moved"))


def test_functions_of_one_file_share_its_variables(walk, options, own):
    own.write_text(
        "count = 0\n"
        "def again(hold):\n    global count\n    count += 1\n"
        "def counted(before, after, reward):\n    return count\n"
    )
    options = options._replace(reward=f"{own}:counted", restart=f"{own}:again")
    with closing(open_game("window/Walk", SIZE, options)) as game:
        game.reset()
        game.reset()
        assert play(game, REST)[1] == 2


def test_keys_that_leave_the_game_are_not_pressed_unless_a_file_binds_them(walk, options):
    options = options._replace(buttons=("D", "ESC", "LALT", "F4"), restart=None)
    with closing(open_game("window/Walk?fps=50", SIZE, options)) as game:
        game.reset()
        for _ in range(5):
            play(game, Action.of([1, 1, 1, 1]))
        assert {*walk.pressed} == {"d", "Alt_L"}


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


@pytest.fixture
def playing(walk, own, clone, tmp_path):
    """A policy that plays the window, with 16 steps until it learns."""
    (tmp_path / "x.yaml").write_text("")
    overrides = settings(tmp_path, clone, walk, "finetune.horizon=16", "finetune.steps=16", "finetune.restart=null")
    setup = Setup.build(load_config(tmp_path / "x.yaml", overrides))
    sizes = {"recorded_size": SIZE, "model_size": SIZE, "processes": 1, "first_seed": 0}
    games = ParallelGames([setup.options.game], **sizes, live=setup.live)
    with games:
        state = setup.initial_state(Start(None, TrainingProgress()))
        playing = Playing(setup, games, state)
        playing.begin(state)
        yield playing, games, state


def test_what_happens_in_a_wait_is_not_of_the_step_before(playing, walk):
    playing, _, _ = playing
    while playing.steps < 3:
        playing.step(0)
    reward = playing.rewards[2, 0]
    with closing(ToyWindow("Other")) as other:
        other.focus()
        for _ in range(5):
            playing.step(0)
            assert playing.waits
        assert playing.steps == 3
        assert playing.ended[:3, 0].tolist() == [False, False, True]
        bootstrapped = reward + 0.99 * playing.values[3, 0]
        assert playing.rewards[2, 0] == pytest.approx(bootstrapped)
    walk.focus()
    while playing.steps < 4:
        playing.step(0)
    assert not playing.waits
    row = playing.experience.lead + 3
    assert playing.experience.begins[row, 0] == row


def test_all_is_released_while_it_learns_and_then_seen_anew(playing, walk):
    playing, games, state = playing
    walk.at = -1000.0  # far from where an episode ends
    while playing.steps < 16:
        playing.step(0)
    next(playing.minibatches(state.opt_state["clone"], 0))  # compiles
    while games.step([GO]).waits:
        pass
    wait_until(lambda: walk.is_held)
    next(playing.minibatches(state.opt_state["clone"], 0))
    wait_until(lambda: not walk.is_held)
    playing.end()
    playing.begin(state)
    row = playing.experience.row
    assert playing.experience.begins[row, 0] == row == playing.experience.lead


def test_a_policy_learns_in_a_window_and_a_run_that_fails_is_saved_and_goes_on(walk, own, clone, tmp_path):
    own.write_text(f"""{OWN}
from pathlib import Path

count = 0

def breaks(before, after, reward):
    global count
    count += 1
    if count == 40 and not Path("{tmp_path}/mended").exists():
        raise ValueError("it broke")
    return moved(before, after, reward)
""")
    (tmp_path / "x.yaml").write_text("")
    overrides = settings(tmp_path, clone, walk, "finetune.horizon=16", "finetune.steps=64")
    overrides += [f"finetune.reward={own}:breaks"]
    with pytest.raises(UserError, match=r"own\.py:breaks failed: ValueError: it broke \(line \d+ of own\.py\)"):
        finetune(load_config(tmp_path / "x.yaml", overrides), Console(file=StringIO()))
    assert checkpoint.find(tmp_path / "c/x/last").name == "32"
    (tmp_path / "mended").touch()
    screen = StringIO()
    finetune(load_config(tmp_path / "x.yaml", overrides), Console(file=screen, width=200))
    assert "it plays while the window has the focus" in screen.getvalue()
    assert "going on after step 32" in screen.getvalue()
    found = [*map(json.loads, (tmp_path / "l/x/metrics.jsonl").read_text().splitlines())]
    rows = [row for row in found if row["kind"] == "epoch"]
    assert [row["step"] for row in rows] == [16, 32, 48, 64]
    assert rows[-1]["kl"] > 0
    assert checkpoint.find(tmp_path / "c/x").name == "64"
    wait_until(lambda: not walk.is_held)


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
        ("finetune.state_names=[x,x]", "finetune.state_names: .*x"),
        ("finetune.curriculum=[{game: gym/CartPole-v1, until: 32}]", "windows are learned in after windows alone"),
        ("finetune.state_names=[]", r"finetune.state_names=\[NAME, ...\] is missing"),
        ("finetune.game=gym/CartPole-v1", "finetune.state is for windows, and gym/CartPole-v1 is none"),
        ("evaluation.rollout={every_n_epochs: 1}", "is not played for a score"),
        ("evaluation.rollout={episodes: 9}", "is not played for a score"),
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
