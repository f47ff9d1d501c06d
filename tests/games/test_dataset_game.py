"""The game that a training plays is the config's, or the one that its dataset is of."""

from io import StringIO

import pytest
import zarr
from rich.console import Console

from BC_training.common.config import load_config
from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.common.preprocess import InputSpec
from BC_training.games.dataset_game import game_of, with_game

BUTTONS = ("move_left", "move_right", "attack")  # those of doom/basic


@pytest.fixture
def data(tmp_path, make_dataset):
    """Makes a dataset of which each episode names the given game, and opens it."""

    def make(*games: object) -> ZarrGameplayDataset:
        make_dataset(tmp_path / "x.zarr", [3] * len(games), actions=len(BUTTONS))
        for number, game in enumerate(games):
            if game is not None:
                zarr.open_group(tmp_path / f"x.zarr/episode_{number}").attrs["game"] = game
        return ZarrGameplayDataset(tmp_path / "x.zarr")

    return make


@pytest.mark.parametrize(
    ("games", "expected"),
    [
        (["doom/basic", "doom/basic"], "doom/basic"),
        (["doom/basic", None], "doom/basic"),
        (["doom/basic", "doom/my_way_home"], None),
        ([None, 3], None),
    ],
)
def test_a_dataset_is_of_the_one_game_that_its_episodes_name(data, games, expected):
    assert game_of(data(*games)) == expected


@pytest.mark.parametrize(
    ("game", "overrides", "buttons", "expected", "said"),
    [
        ("doom/basic", [], BUTTONS, "doom/basic", ""),
        ("doom/my_way_home", ["evaluation.rollout.game=doom/basic"], BUTTONS, "doom/basic", ""),
        ("doom/basic", ["evaluation.rollout=null"], BUTTONS, None, ""),
        (None, [], BUTTONS, None, "is not played: its episodes do not name one game; evaluation.rollout.game="),
        ("window/Elden Ring", [], BUTTONS, None, "x.zarr is not played: its game is a window of the user's"),
        ("Elden Ring", [], BUTTONS, None, "x.zarr is not played: unknown game 'Elden Ring'"),
        ("doom/basic", [], ("a", "b"), None, "x.zarr (evaluation.rollout=null trains without play) has buttons [a, b]"),
    ],
)
def test_the_game_of_the_config_or_else_of_the_dataset_is_played(data, game, overrides, buttons, expected, said):
    dataset, screen = data(game), StringIO()
    config = load_config("configs/pure_cnn.yaml", [f"dataset.path={dataset.path}", *overrides])
    inputs = InputSpec(buttons, (), (24, 32), (24, 32), 17.0)
    play = with_game(config, dataset, inputs, Console(file=screen)).evaluation.rollout
    assert (play and play.game) == expected
    assert said in screen.getvalue()
    assert screen.getvalue().count("\n") == bool(said)


@pytest.mark.parametrize(
    ("game", "overrides", "message"),
    [
        ("doom/basic", ["evaluation.rollout.game=doom/my_way_home"], "has buttons"),
        (
            "Elden Ring",
            ["evaluation.best_metric=rollout", "evaluation.rollout.every_n_epochs=1"],
            "best_metric=rollout",
        ),
    ],
)
def test_a_game_that_must_be_played_and_cannot_be_is_an_error(data, game, overrides, message):
    dataset = data(game)
    config = load_config("configs/pure_cnn.yaml", [f"dataset.path={dataset.path}", *overrides])
    with pytest.raises(UserError, match=message):
        with_game(config, dataset, InputSpec(BUTTONS, (), (24, 32), (24, 32), 17.0), Console(file=StringIO()))
