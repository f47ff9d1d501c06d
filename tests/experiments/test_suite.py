"""A suite trains and plays several real games."""

import json
from io import StringIO

import numpy as np
import pytest
from rich.console import Console

from BC_training.common.config import load_config, save_config
from BC_training.common.errors import UserError
from BC_training.experiments.suite import Suite, suite
from BC_training.experiments.suite_scores import Normalized, SuiteScores

FILE = """
variants: {small: configs/pure_cnn_small.yaml}
settings:
  dataset.record.episodes: 4
  dataset.record.frame_size: [24, 32]
  dataset.frame_size: [24, 32]
  dataset.split: {train: 0.5, val: 0.5}
  model.conv_features: [4, 8]
  model.conv_strides: [2, 2]
  model.dense_features: [16]
  training.num_epochs: 1
  training.batch_size: 16
  evaluation.rollout.episodes: 2
  evaluation.rollout.video: false
  logging.report: false
  logging.wandb.enabled: false
games:
  doom/basic: {}
  doom/defend_the_line: {dataset.record.episodes: 2}
"""


@pytest.fixture
def plan_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "two.yaml"
    file.write_text(FILE)
    return file


def load(file, *overrides):
    places = ["training.checkpoint_dir=c", "logging.log_dir=l"]
    return Suite.load(file, [*places, "system.workers=1", *overrides])


def test_a_suite_goes_on_after_a_failed_training_and_finishes_when_it_is_run_again(plan_file, tmp_path):
    plan_file.write_text(FILE.replace("line: {", "line: {dataset.actions: [jump], "))
    with pytest.raises(UserError, match=r"1 of 2 trainings failed: doom/defend_the_line small .*'jump'"):
        suite(load(plan_file), Console(file=StringIO()))
    broken = SuiteScores.from_dict(json.loads((tmp_path / "l/two/suite.json").read_text()))
    assert "small" in broken.games["doom/basic"]
    assert "small" not in broken.games["doom/defend_the_line"]
    assert broken.mean["small"] is None
    assert "| – |" in (tmp_path / "l/two/suite.md").read_text()

    plan_file.write_text(FILE)
    screen = StringIO()
    result = suite(load(plan_file), Console(file=screen, width=200))
    assert screen.getvalue().count("finished before") == 1
    assert SuiteScores.from_dict(json.loads((tmp_path / "l/two/suite.json").read_text())) == result
    assert list(result.games) == ["doom/basic", "doom/defend_the_line"]
    for game, scores in result.games.items():
        scenario = game.removeprefix("doom/")
        assert (tmp_path / f"data/two/{scenario}.zarr").is_dir()
        played = json.loads((tmp_path / f"l/two-{scenario}-small/rollout.json").read_text())
        small = scores["small"].to_dict()
        assert {key: played[key] for key in small} == small
        assert scores["expert"].normalized == 1
        assert scores["random"].normalized == 0
        assert len(scores["noop"].returns) == 2
    lines = (tmp_path / "l/two/suite.md").read_text().splitlines()
    assert [line.split(" | ")[0] for line in lines[2:5]] == ["| basic", "| defend_the_line", "| mean"]
    assert [line.split(" | ")[0] for line in lines[8:]] == ["| basic", "| defend_the_line"]

    again = StringIO()
    assert suite(load(plan_file), Console(file=again)) == result
    assert again.getvalue().count("finished before") == 2
    assert "plays" not in again.getvalue()

    # A file that is cut off is made again, and so are scores of other settings.
    plan_file.write_text(FILE.replace("  doom/defend_the_line: {dataset.record.episodes: 2}\n", ""))
    (tmp_path / "l/two/basic.json").write_text('{"game": "doom/ba')
    (tmp_path / "l/two-basic-small/rollout.json").write_text("")
    assert suite(load(plan_file), Console(file=StringIO())).games["doom/basic"] == result.games["doom/basic"]
    changed = load(plan_file, "evaluation.rollout.episodes=3")
    # A training that is stopped before its last play leaves its config.
    save_config(changed.configs["doom/basic", "small"], tmp_path / "l/two-basic-small/config.yaml")
    more = suite(changed, Console(file=StringIO())).games["doom/basic"]
    assert {len(score.returns) for score in more.values()} == {3}


def test_scores_are_normalized_game_by_game():
    rng = np.random.default_rng(0)
    scale = {"random": list(rng.normal(1, 0.01, 100)), "expert": list(rng.normal(11, 0.01, 100))}
    games = {
        "doom/basic": scale | {"mine": list(rng.normal(6, 1, 50))},
        "doom/my_way_home": {who: [r / 10 for r in returns] for who, returns in scale.items()}
        | {"mine": list(rng.normal(0.6, 0.1, 50))},
    }
    result = SuiteScores.of("x", games, ["expert", "mine"])
    first = (np.mean(games["doom/basic"]["mine"]) - 1) / 10
    second = np.mean(games["doom/my_way_home"]["mine"]) - 0.1
    assert result.games["doom/basic"]["mine"].normalized == pytest.approx(first, abs=0.001)
    mean = result.mean["mine"]
    assert mean is not None
    assert mean.normalized == pytest.approx((first + second) / 2, abs=0.001)
    # The interval is that of the mean of two independent means.
    deviation = np.hypot(np.std(games["doom/basic"]["mine"]) / 10, np.std(games["doom/my_way_home"]["mine"])) / 2
    assert mean.normalized_ci95 is not None
    low, high = mean.normalized_ci95
    assert 1 < (high - low) / 2 / (1.96 * deviation / np.sqrt(50)) < 2.5  # it is wider for what was not seen
    assert (low + high) / 2 == pytest.approx(mean.normalized, abs=0.005)
    lines = result.markdown().splitlines()
    assert lines[2].startswith("| basic | 1.000 | 0.")
    assert lines[6].startswith("| failed episodes | expert | mine |")
    failed = sum(r < 6 for r in games["doom/basic"]["mine"])
    assert lines[8].startswith(f"| basic | 0 of 100 (0.0 to 3.7 %) | {failed} of 50 (")
    games["doom/basic"]["expert"] = [-1.0, -2.0]  # worse than random
    assert SuiteScores.of("x", games, ["mine"]).markdown().splitlines()[2:5:2] == ["| basic | – |", "| mean | – |"]


def test_a_player_without_scale_or_spread_has_no_score_and_no_interval():
    level = {"random": [1.0, 3.0], "expert": [2.0, 2.0], "mine": [4.0, 5.0]}
    steep = {"random": [0.0, 0.0], "expert": [1.0, 1.0], "mine": [0.5, 0.7]}
    result = SuiteScores.of("x", {"doom/basic": level, "doom/my_way_home": steep}, ["expert", "mine"])
    assert result.games["doom/basic"]["mine"].normalized is None
    assert result.games["doom/my_way_home"]["mine"].normalized == pytest.approx(0.6)
    assert result.markdown().splitlines()[2] == "| basic | – | – |"
    assert result.mean == {"expert": None, "mine": None}
    once = {who: returns[:1] for who, returns in steep.items()}
    single = SuiteScores.of("x", {"doom/my_way_home": once}, ["mine"])
    assert single.mean["mine"] == Normalized(0.5, None)
    assert single.markdown().splitlines()[3] == "| mean | 0.500 |"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("games:", "gmes:"), r"unknown section of the suite .*two.yaml, 'gmes'; did you mean 'games'\?"),
        (("doom/basic", "doom/basics"), r"unknown game 'doom/basics'; did you mean 'doom/basic'\?"),
        (("small: c", "expert: c"), r"'expert' is a scripted player"),
        (
            ("{small: configs/pure_cnn_small.yaml}", "{small: configs/pure_cnn_small.yaml, hard: hard.yaml}"),
            r"variants play alike, but in doom/basic hard plays .*'seed': 5}.* and small .*'seed': 0}",
        ),
        (("training.num_epochs", "training.epochs"), r"unknown key 'training.epochs'"),
        (("configs/pure_cnn_small.yaml", "configs/pure_cnn_smal.yaml"), r"did you mean configs/pure_cnn_small.yaml\?"),
        (("basic: {}", "basic: 3"), r"game doom/basic is a mapping of settings, found '3'"),
        (("small: configs/pure_cnn_small.yaml", "small: 0012"), r"no config file '0012'"),
        (("small: configs/pure_cnn_small.yaml", "small: [x]"), r"variant small is a config file"),
        (("{small: configs/pure_cnn_small.yaml}", "3"), r"'variants' is a mapping, found '3'"),
        (("basic: {}", "basic: {evaluation.rollout: null}"), r"small does not play: give configs/pure_cnn_small"),
        (("{small: configs/pure_cnn_small.yaml}", "{}"), r"at least one of 'variants' and one of 'games'"),
    ],
)
def test_a_faulty_suite_is_refused_before_anything_is_written(plan_file, tmp_path, change, message):
    plan_file.write_text(FILE.replace(*change, 1))
    save_config(load_config("configs/pure_cnn_small.yaml", ["evaluation.rollout.seed=5"]), tmp_path / "hard.yaml")
    with pytest.raises(UserError, match=message) as error:
        load(plan_file)
    assert "\n" not in str(error.value)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hard.yaml", "two.yaml"]
