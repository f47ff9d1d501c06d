"""Players are scored in real play."""

import errno
import json
import shutil
import subprocess
import sys
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console
from untrained import change_meta, save_run
from videos import decode

from BC_training.common.action import Action
from BC_training.common.errors import UserError
from BC_training.common.preprocess import InputSpec
from BC_training.games import GameSpec
from BC_training.play import references
from BC_training.play.episodes import Outcome
from BC_training.play.players import BUILT_IN, PolicyPlayer
from BC_training.play.references import known_returns, scripted_returns
from BC_training.play.results import RolloutResult
from BC_training.play.rollout import rollout
from BC_training.play.scores import RolloutSession, play_episodes
from BC_training.play.video import Hud, VideoWriter
from BC_training.training import checkpoint

GAME = "doom/deadly_corridor"
BUTTONS = ("move_left", "move_right", "attack", "move_forward", "move_backward", "turn_left", "turn_right")
QUIET = Console(file=StringIO())


def test_result_has_the_documented_keys_and_arithmetic(tmp_path):
    result = rollout("noop", f"{GAME}?skill=3", QUIET, episodes=2, seed=3, workers=1, json_file=tmp_path / "r.json")
    raw = json.loads((tmp_path / "r.json").read_text())
    assert RolloutResult.from_dict(raw) == result
    assert (raw["game"], raw["player"], raw["video"], raw["decoding"]) == (GAME, "noop", None, None)
    assert (raw["episodes"], raw["seed"], len(raw["returns"])) == (2, 3, 2)
    assert result.mean == pytest.approx(np.mean(result.returns))
    assert result.ci95[0] <= result.mean <= result.ci95[1]
    span = result.expert_mean - result.random_mean
    assert result.normalized == pytest.approx((result.mean - result.random_mean) / span)
    assert result.normalized_ci95[0] <= result.normalized <= result.normalized_ci95[1]
    assert (result.failed, result.seen) == (2, {})
    for who, returns in result.references.items():
        assert raw[f"{who}_mean"] == np.mean(returns)
        assert raw[f"{who}_ci95"][0] <= np.mean(returns) <= raw[f"{who}_ci95"][1]


@pytest.mark.parametrize("reward", [np.nan, np.inf, -np.inf])
def test_a_return_that_is_no_number_is_refused_with_its_seed(monkeypatch, reward):
    monkeypatch.setattr(RolloutSession, "_play", lambda self, seed, film: Outcome(float(reward), 3))
    with pytest.raises(UserError, match=rf"doom/basic: the return of seed 7 is {reward}"):
        rollout("noop", "doom/basic", QUIET, episodes=1, seed=7, workers=1)


def test_the_expert_scores_1_and_random_0():
    for player, score in (("expert", 1), ("random", 0)):
        assert rollout(player, "doom/basic", QUIET, episodes=2, workers=1).normalized == score


# --- returns that are known ----------------------------------------------------------------


@pytest.mark.parametrize("player", BUILT_IN)
@pytest.mark.parametrize(("game", "seeds"), [("doom/basic", [99, 5099]), (GAME, [0, 1019])])
def test_known_returns_are_those_of_play_now(game, seeds, player):
    played = [outcome.score for outcome in play_episodes(game, player, seeds, (72, 128), 1, QUIET)]
    assert known_returns(GameSpec.parse(game), player, seeds) == played


def test_only_what_is_not_known_is_played_and_the_rest_is_reported(monkeypatch):
    played, screen = [], StringIO()

    def note(game, player, seeds, *_):
        played.append((player, seeds))
        return [Outcome(0.0, 1) for _ in seeds]

    monkeypatch.setattr(references, "play_episodes", note)
    game, console = GameSpec.parse(GAME), Console(file=screen, width=200)
    found = scripted_returns(game, ["random", "expert"], range(1000, 1020), 1, console)
    assert (played, [*map(len, found.values())]) == ([], [20, 20])
    assert screen.getvalue() == f"{GAME}, seeds 1000 to 1019: the returns of random and expert are known\n"
    scripted_returns(game, ["random"], range(99, 101), 1, QUIET)
    scripted_returns(GameSpec.parse(f"{GAME}?skill=5"), ["random"], range(2), 1, QUIET)
    monkeypatch.setattr(references, "version", lambda _: "1.2.3")
    references.game_version.cache_clear()
    scripted_returns(game, ["expert"], range(3), 1, QUIET)
    references.game_version.cache_clear()
    assert played == [("random", range(99, 101)), ("random", range(2)), ("expert", range(3))]


def test_what_is_not_known_is_played_and_written(monkeypatch, tmp_path):
    monkeypatch.setattr(references, "FILE", tmp_path / "known.json")
    monkeypatch.setattr(references, "SEEDS", (range(7, 9),))
    monkeypatch.setattr(sys, "argv", ["references", "doom/basic"])
    monkeypatch.setattr(references, "play_episodes", lambda *task: [Outcome(seed / 10, 1) for seed in task[2]])
    for _ in range(2):
        references._read_file.cache_clear()
        references.main()
    references._read_file.cache_clear()
    assert known_returns(GameSpec.parse("doom/basic"), "noop", [8, 7]) == [0.8, 0.7]
    assert known_returns(GameSpec.parse("doom/basic"), "noop", [9]) is None
    references._read_file.cache_clear()


def test_comments_and_docstrings_are_no_part_of_a_version(tmp_path):
    codes = []
    for text in ('"""A."""\nx = 1  # one\n', '"""B."""\n\nx = 1\n', "x = 2\n"):
        (tmp_path / "a.py").write_text(text)
        codes.append(references._plain_code(tmp_path / "a.py"))
    assert codes[0] == codes[1] != codes[2]


def test_processes_of_scripted_players_start_without_jax_and_name_games_without_their_engine():
    code = "import sys, BC_training.play.rollout, BC_training.play.record"
    code += "; sys.exit(bool({'jax', 'vizdoom'} & sys.modules.keys()))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_the_video_shows_every_frame_of_the_player_not_of_the_reference(tmp_path):
    video = tmp_path / "play.mp4"
    result = rollout("random", "doom/basic?delay=2", QUIET, episodes=1, workers=1, video=video)
    (played,) = play_episodes("doom/basic?delay=2", "random", [0], (72, 128), 1, QUIET)
    pictures, rate = decode(video)
    assert (result.video, rate) == (str(video), 17.5)
    assert pictures.shape == (played.frames, 288 + 26, 512, 3)
    assert pictures[len(pictures) // 2].std() > 5
    assert played.frames != play_episodes("doom/basic", "random", [0], (72, 128), 1, QUIET)[0].frames


def test_buttons_are_drawn_as_held_or_released():
    image = np.zeros((288, 512, 3), np.uint8)
    names = ["left", "right"]
    none, left = (Hud(names, ()).draw(image, Action.of(a), "") for a in ([False, False], [True, False]))
    changed = np.argwhere((none != left).any(axis=-1))
    assert len(changed) > 1000
    assert changed[:, 0].min() >= 288  # under the picture
    assert changed[:, 1].max() < 256  # the left half


@pytest.mark.parametrize("size", [(72, 128), (100, 101)])
def test_videos_of_any_size_are_written(tmp_path, size):
    images = np.random.default_rng(0).integers(0, 256, (5, *size, 3), np.uint8)
    with VideoWriter(tmp_path / "v.mp4", 17.08, ["a", "b", "c"]) as writer:
        for image in images:
            writer.add(image, Action.of([True, False, True]))
    assert len(decode(tmp_path / "v.mp4")[0]) == 5


def test_a_full_disk_keeps_the_older_result(tmp_path, monkeypatch):
    file = tmp_path / "r.json"
    file.write_text("older")

    def full(self, *args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(UserError, match=r"the disk that holds .*r.json is full"):
        rollout("random", "doom/basic", QUIET, episodes=1, workers=1, json_file=file)
    assert file.read_text() == "older"


def test_seeds_that_the_game_does_not_take_are_refused():
    with pytest.raises(UserError, match="--seed 4294967295 is out of range"):
        rollout("noop", GAME, QUIET, episodes=2, seed=2**32 - 1)


def test_unwritable_files_are_found_before_playing(tmp_path):
    for kind in ("json_file", "video"):
        with pytest.raises(UserError, match="cannot write"):
            rollout("noop", GAME, QUIET, episodes=1, workers=1, **{kind: tmp_path / "no" / "x"})
    assert not list(tmp_path.iterdir())


# --- a checkpoint's decoding ---------------------------------------------------------------


@pytest.fixture(scope="module")
def run(tmp_path_factory, make_config) -> Path:
    """A policy that fits the game and has learned nothing."""
    inputs = InputSpec(BUTTONS, (), (24, 32), (24, 32), 17.5)
    return save_run(tmp_path_factory.mktemp("rollout") / "run", make_config(), inputs)


def test_decode_changes_this_play_and_is_recorded(run, monkeypatch):
    """The player holds in each frame what the settings say."""
    held, act = [], PolicyPlayer.act

    def noted(self, observation):
        held.append(act(self, observation))
        return held[-1]

    monkeypatch.setattr(PolicyPlayer, "act", noted)
    own = rollout(str(run), GAME, QUIET, episodes=1, workers=1)
    assert own.decoding == checkpoint.read(run).decoding
    held.clear()
    decode = ["threshold=0.999", "thresholds.attack=0.001", "hysteresis=0.0005"]
    result = rollout(str(run), GAME, QUIET, episodes=1, workers=1, decode=decode)
    assert [action.buttons.tolist() for action in held] == [[name == "attack" for name in BUTTONS]] * len(held)
    assert result.decoding.thresholds == dict.fromkeys(BUTTONS, 0.999) | {"attack": 0.001}
    assert result.decoding.hysteresis == 0.0005
    assert checkpoint.read(run).decoding == own.decoding
    held.clear()
    screen, group = StringIO(), ["threshold=0.001", "exclusive=[[turn_left,turn_right]]"]
    rollout(str(run), GAME, Console(file=screen, width=200), episodes=1, workers=1, decode=group)
    assert all(action.buttons[-2:].sum() == 1 for action in held)
    assert group[1] in screen.getvalue()


def test_sampled_play_follows_from_the_episodes_seeds(run):
    decode = ["temperature=3"]
    both = rollout(str(run), GAME, QUIET, episodes=2, workers=1, decode=decode)
    second = rollout(str(run), GAME, QUIET, episodes=1, seed=1, workers=1, decode=decode)
    assert second.returns == both.returns[1:]


def test_decode_is_for_checkpoints_and_checked_before_playing(run):
    for player in ("expert", "random", "noop"):
        with pytest.raises(UserError, match=f"--decode is for checkpoints: the player '{player}'"):
            rollout(player, GAME, QUIET, decode=["threshold=0.4"])
    with pytest.raises(UserError, match=r"--decode exclusive=\{a: b\}: "):
        rollout(str(run), GAME, QUIET, decode=["exclusive={a: b}"])
    with pytest.raises(UserError, match="unknown action 'atack'; did you mean 'attack'"):
        rollout(str(run), GAME, QUIET, decode=["thresholds.atack=0.4"])


def test_play_of_seeds_that_were_trained_on_is_marked(run, tmp_path):
    shutil.copytree(run, tmp_path / "run")
    step = checkpoint.find(tmp_path / "run")
    change_meta(step, seeds={"train": [[GAME, 4, 9]], "val": []})
    screen = StringIO()
    result = rollout(str(step), GAME, Console(file=screen, width=250), episodes=3, seed=2, workers=1)
    assert result.seen == {"trained": 1, "chosen": 0, "free": 0}
    assert "of these 3 seeds the policy was trained on 1" in screen.getvalue()
    assert rollout(str(step), GAME, QUIET, episodes=3, seed=0, workers=1).seen == {}
