import pytest
import zarr
from dataset_files import user_error

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.common.mirror import Mirror, MirrorTable

CORRIDOR = ("move_left", "move_right", "attack", "move_forward", "move_backward", "turn_left", "turn_right")
HERO = ("move_forward", "move_back", "move_left", "move_right", "dodge_roll/dash", "lock_on", "attack")
HERO_STATE = ("HeroHp", "HeroMaxHp", "HeroSp", "HeroMaxSp", "HeroFp", "HeroMaxFp", "NpcHp", "NpcMaxHp", "NpcId")


def table(entries=None, keys=(), attributes=()) -> MirrorTable:
    return MirrorTable(entries, tuple(keys), tuple(attributes), "data/x.zarr")


def mirror(names, state=(), entries=None) -> Mirror:
    return table(entries, names, state).find(names, state)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (CORRIDOR, (1, 0, 2, 3, 4, 6, 5)),
        (HERO, (0, 1, 3, 2, 4, 5, 6)),
        (("MoveLeft", "jump", "MoveRight"), (2, 1, 0)),
        (("TURN-LEFT", "turn_right"), (1, 0)),
        (("look_up", "SELECT_NEXT_WEAPON", "LockOn"), (0, 1, 2)),
    ],
)
def test_a_name_with_a_side_is_swapped_and_one_of_neutral_words_stays(names, expected):
    assert mirror(names).actions == expected


@pytest.mark.parametrize(
    "name",
    ["key_3", "turn", "move", "strafe", "left", "turn_left", "left_click", "нет", "_", "camera_yaw", "turn180"],
)
def test_an_action_that_is_not_known_is_refused_and_named(name):
    """The names include one with a side but no counterpart, and sides of a device."""
    names = (name, "attack", "right_click")
    message = user_error(mirror, names)
    assert f"'{name}'" in message
    assert "zarr.open_group('data/x.zarr').attrs['mirror'] = {" in message


def test_two_names_of_the_same_words_are_refused():
    with pytest.raises(UserError, match="'turn_left', 'TurnLeft', 'turn_right'"):
        mirror(("turn_left", "TurnLeft", "turn_right"))


def test_a_state_value_is_its_own_image_only_if_all_its_words_are_neutral():
    assert mirror(HERO, HERO_STATE) == Mirror((0, 1, 3, 2, 4, 5, 6), tuple(range(9)), (1.0,) * 9)
    for name in ("HeroAngle", "HeroGlobalPosX", "HeroAnimId", "camera_roll", "ammo_left", "a"):
        with pytest.raises(UserError, match=f"state value '{name}'"):
            mirror(HERO, (*HERO_STATE, name))


def test_a_table_gives_images_that_names_do_not():
    entries = {"key_1": "key_0", "HeroAngle": "-HeroAngle", "x0": "-x1", "use": "use", "key_2": "key_2"}
    found = mirror(("key_0", "key_1", "key_2", "use"), ("x0", "HeroHp", "x1", "HeroAngle"), entries)
    assert found == Mirror((1, 0, 2, 3), (2, 1, 0, 3), (-1.0, 1.0, -1.0, -1.0))


def test_the_table_wins_over_the_names():
    unswapped = {"turn_left": "turn_left", "turn_right": "turn_right"}
    assert mirror(("turn_left", "turn_right"), (), unswapped).actions == (0, 1)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ({"atack": "atack"}, "unknown name 'atack'; did you mean 'attack'"),
        ({"key_0": "key_9"}, "unknown action 'key_9'"),
        ({"key_0": "angle"}, "unknown action 'angle'"),
        ({"key_0": "-key_0"}, "a button has no sign"),
        ({"key_0": "key_1", "key_1": "attack"}, "two mirror images"),
        ({"key_0": "attack", "key_1": "attack"}, "two mirror images"),
        ({"angle": "-speed", "speed": "angle"}, "two mirror images"),
        ({"key_0": 1}, "not a table of names"),
        (["key_0"], "not a table of names"),
    ],
)
def test_a_wrong_table_is_refused(entries, message):
    assert message in user_error(table(entries, ("key_0", "key_1", "attack"), ("angle", "speed")).find, ("attack",))


def test_the_table_that_the_refusal_shows_keeps_what_is_there_and_cannot_be_used_as_it_is():
    with pytest.raises(UserError, match=r"= \{'key_0': 'key_1', 'key_2': '\?'\}"):
        mirror(("key_0", "key_1", "key_2"), (), {"key_0": "key_1"})
    with pytest.raises(UserError, match="unknown action"):
        mirror(("key_0", "key_1", "key_2"), (), {"key_0": "key_1", "key_2": "?"})


def test_chosen_actions_that_lack_a_counterpart_are_refused():
    for whole in (table(None, CORRIDOR), table({"turn_left": "turn_right"}, CORRIDOR)):
        assert whole.find(("turn_right", "attack", "turn_left")).actions == (2, 1, 0)
        with pytest.raises(UserError, match=r"that of 'turn_left' is not among dataset\.actions"):
            whole.find(("attack", "turn_left"))


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_dataset_is_mirrored_by_its_own_table(make_dataset, tmp_path, zarr_format):
    make_dataset(tmp_path / "d.zarr", [4], actions=3, state=2, zarr_format=zarr_format)
    zarr.open_group(tmp_path / "d.zarr").attrs["mirror"] = {"a0": "a2", "a1": "a1", "s0": "-s0", "s1": "s1"}
    dataset = ZarrGameplayDataset(tmp_path / "d.zarr", actions=["a2", "a0"])
    assert dataset.mirror.find(dataset.action_names, dataset.state_names) == Mirror((1, 0), (0, 1), (-1.0, 1.0))
