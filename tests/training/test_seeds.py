"""Finds the episodes that a score in play shares with the training."""

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from BC_training.common.errors import UserError
from BC_training.common.settings.evaluation import RolloutConfig
from BC_training.training.seeds import recorded_seeds, require_unseen, seen_seeds, seen_text

GAME = "doom/basic"


def dataset(*attributes: dict[str, Any]) -> Any:
    return SimpleNamespace(episodes=[SimpleNamespace(attrs=attrs) for attrs in attributes])


def saved(seeds: dict[str, Any], best_metric: str = "macro_f1", play: RolloutConfig | None = None) -> Any:
    evaluation = SimpleNamespace(rollout=play, best_metric=best_metric)
    return SimpleNamespace(seeds=seeds, config=SimpleNamespace(evaluation=evaluation))


@given(st.sets(st.integers(0, 60), min_size=1), st.integers(0, 60), st.integers(1, 20))
def test_every_seed_of_a_recording_is_found_and_no_other(seeds, first, count):
    episodes = dataset(*({"game": GAME, "seed": seed} for seed in sorted(seeds, reverse=True)))
    found = recorded_seeds(episodes, {"train": list(range(len(seeds))), "val": []})
    seen = seen_seeds(saved(found), GAME, range(first, first + count))
    met = seeds & set(range(first, first + count))
    assert seen.get("trained", 0) == len(met)
    if met:
        free = range(seen["free"], seen["free"] + count)
        assert not seeds & set(free)
        assert seen_seeds(saved(found), GAME, free) == {}
    assert seen_seeds(saved(found), "doom/my_way_home", range(first, first + count)) == {}
    assert seen_seeds(saved(found), f"{GAME}?skill=4", range(first, first + count)) == {}
    assert seen_seeds(saved(found), f"{GAME}?skill=3&delay=4", range(first, first + count)) == seen


def test_recordings_without_a_game_and_a_seed_are_left_out():
    odd = [{}, {"seed": 3}, {"game": GAME}, {"game": 1, "seed": 3}, {"game": [GAME], "seed": 3}]
    odd += [{"game": GAME, "seed": seed} for seed in ("3", True, None, 3.5)]
    everything = list(range(len(odd)))
    assert recorded_seeds(dataset(*odd), {"train": everything, "val": everything}) == {"train": [], "val": []}


def test_names_that_are_no_game_are_kept():
    split = {"train": [0], "val": []}
    assert recorded_seeds(dataset({"game": "my game.wad", "seed": 3}), split)["train"] == [("my game.wad", 3, 3)]


def test_seeds_that_chose_the_checkpoint_are_counted_apart_from_those_that_trained_it():
    seeds = {"train": [[GAME, 10, 12]], "val": [[GAME, 12, 13]]}  # lists, as JSON has them
    assert seen_seeds(saved(seeds), GAME, range(10, 20)) == {"trained": 3, "chosen": 1, "free": 0}
    play = RolloutConfig(GAME, episodes=5, every_n_epochs=1, validation_seed=100)
    chosen = saved({}, "rollout", play)
    seen = seen_seeds(chosen, GAME, range(102, 110))
    assert (seen["trained"], seen["chosen"]) == (0, 3)
    assert seen_text(seen, 8) == (
        "of these 8 seeds the checkpoint was chosen on 3: this says little of others; --seed 0 has none of them"
    )
    assert seen_seeds(saved({}, "macro_f1", play), GAME, range(102, 110)) == {}


@pytest.mark.parametrize(
    ("options", "name", "free"),
    [
        ({"seed": 5}, "seed", 31),
        ({"seed": 30, "episodes": 10}, "seed", 0),
        ({"seed": 200, "every_n_epochs": 2, "validation_seed": 25}, "validation_seed", 31),
        ({"seed": 46, "every_n_epochs": 2, "validation_seed": 25}, "validation_seed", 66),
    ],
)
def test_play_on_seeds_to_be_trained_on_is_refused_with_seeds_that_work(options, name, free):
    spans, play = [(GAME, 10, 30)], RolloutConfig(GAME, **options)
    with pytest.raises(UserError, match=rf"evaluation.rollout.{name}={free} has none") as error:
        require_unseen(play, spans, "data/x.zarr")
    assert "are in data/x.zarr" in str(error.value)
    require_unseen(RolloutConfig(GAME, **(options | {name: free})), spans, "data/x.zarr")
    require_unseen(RolloutConfig(f"{GAME}?skill=4", **options), spans, "data/x.zarr")
    require_unseen(RolloutConfig("doom/other", **options), spans, "data/x.zarr")


def test_validation_seeds_count_only_where_they_are_played():
    require_unseen(RolloutConfig(GAME, validation_seed=1000), [(GAME, 1000, 1001)], "data/x.zarr")
