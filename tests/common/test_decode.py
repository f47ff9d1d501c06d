"""Buttons from probabilities, against rules in plain Python and counted frequencies."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from dataset_files import user_error
from hypothesis import given
from hypothesis import strategies as st

from BC_training.common.decode import DecodeSettings, Decoding
from BC_training.common.decoder import Decoder, decode_episodes

NAMES = ("forward", "left", "right", "attack", "use")
# Coarse, so that thresholds are met exactly and groups tie; the tenths are no binary fractions.
TENTHS = [n / 10 for n in range(11)]


def decoding(threshold: float = 0.5, names=NAMES, **settings) -> Decoding:
    return DecodeSettings(threshold, **settings).decoding(names)


def stream(rules: Decoding, p: np.ndarray, seed: int = 0) -> np.ndarray:
    """bool [N, A] of an episode."""
    decoder = Decoder(rules)
    decoder.reset(seed)
    return np.stack([decoder(row) for row in p])


def written_out(rules: Decoding, p: np.ndarray) -> list[list[bool]]:
    """The rules without sampling for an episode, button by button in plain Python."""
    names, held, rows = list(rules.thresholds), dict.fromkeys(rules.thresholds, False), []
    for row in p.tolist():
        bars = {n: rules.thresholds[n] - (rules.hysteresis if held[n] else 0) for n in names}
        chance = dict(zip(names, row, strict=True))
        wanted = {n: chance[n] >= bars[n] for n in names}
        held = dict(wanted)
        for group in rules.exclusive:
            rivals = [n for n in group if wanted[n]]
            best = max(rivals, key=lambda n: chance[n] - bars[n], default=None)  # the first of equals
            held.update((n, n == best) for n in group)
        rows.append(list(held.values()))
    return rows


@st.composite
def rules_and_episodes(draw) -> tuple[Decoding, list[np.ndarray]]:
    thresholds = {name: draw(st.sampled_from(TENTHS[3:10])) for name in NAMES}
    groups = draw(st.sampled_from([(), (("left", "right"),), (("right", "left"), ("use", "attack", "forward"))]))
    rules = Decoding(thresholds, None, draw(st.sampled_from([0.0, 0.1, 0.2, 0.29])), groups)
    lengths = draw(st.lists(st.integers(0, 12), min_size=1, max_size=4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    coarse = draw(st.booleans())
    return rules, [rng.choice(TENTHS, (n, 5)) if coarse else rng.random((n, 5), np.float32) for n in lengths]


@given(rules_and_episodes())
def test_playing_frame_by_frame_equals_scoring_whole_episodes_and_the_written_rules(case):
    rules, episodes = case
    together = decode_episodes(rules, np.concatenate(episodes), [len(p) for p in episodes])
    written = [row for p in episodes for row in written_out(rules, p)]
    assert together.dtype == bool
    assert together.tolist() == written
    assert [row for p in episodes if len(p) for row in stream(rules, p).tolist()] == written


def test_a_button_is_pressed_at_its_threshold_and_no_earlier():
    rules = decoding(0.7, thresholds={"attack": 0.3})
    below, at = np.nextafter([0.7, 0.7, 0.7, 0.3, 0.7], 0), np.array([0.7, 0.7, 0.7, 0.3, 0.7])
    assert not stream(rules, below[None]).any()
    assert stream(rules, at[None]).all()
    # As float32 0.7 is less than 0.7: it is not pressed, in play or offline.
    assert not decode_episodes(rules, at.astype(np.float32)[None], [1])[0, 0]


def test_a_held_button_is_released_only_below_threshold_less_hysteresis():
    p = np.array([0.45, 0.5, 0.45, 0.4, 0.39, 0.45, 0.5])[:, None]
    expected = [False, True, True, True, False, False, True]
    assert stream(decoding(0.5, ["a"], hysteresis=0.5 - 0.4), p)[:, 0].tolist() == expected


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_sampled_buttons_are_as_frequent_as_the_softened_probabilities(temperature):
    logits = np.array([-4.0, -1.5, 0.0, 1.0, 3.0])
    p, frames = 1 / (1 + np.exp(-logits)), 6_000
    rules = decoding(0.2, temperature=temperature)
    held = stream(rules, np.tile(p, (frames, 1)))
    for frequency, logit in zip(held.mean(axis=0), logits, strict=True):
        chance = sigmoid(logit / temperature)  # whatever the threshold
        assert frequency == pytest.approx(chance, abs=4 * math.sqrt(chance * (1 - chance) / frames))
    # Independent of the frames before and of the other buttons, of which there are more than Philox has in a block.
    now, before = held[1:].astype(float), held[:-1].astype(float)
    both = np.corrcoef(np.concatenate([now, before], axis=1), rowvar=False)
    assert np.abs(both - np.eye(10)).max() < 0.06


def test_sampling_with_hysteresis_makes_a_held_button_likelier():
    rules = decoding(0.5, ["a"], temperature=2.0, hysteresis=0.3)
    held = stream(rules, np.full((8_000, 1), 0.4))[:, 0]
    for before, p in ((False, 0.4), (True, 0.7)):
        chance = sigmoid(math.log(p / (1 - p)) / 2)
        assert held[1:][held[:-1] == before].mean() == pytest.approx(chance, abs=0.03)


def test_draws_follow_from_the_seed_and_the_number_of_the_frame_alone():
    rules, rng = decoding(temperature=1.0), np.random.default_rng(0)
    p = rng.random((50, 5))
    assert (stream(rules, p, 3) == stream(rules, p, 3)).all()
    assert (stream(rules, p, 3) != stream(rules, p, 4)).any()
    other = np.concatenate([rng.random((20, 5)), p[20:]])
    assert (stream(rules, p, 3)[20:] == stream(rules, other, 3)[20:]).all()
    decoder = Decoder(rules)
    first = [decoder(row) for row in p]  # a new decoder needs no reset
    decoder.reset()
    assert (np.stack([decoder(row) for row in p]) == first).all()
    assert (np.stack(first) == stream(rules, p, 0)).all()


def test_certain_buttons_are_always_and_impossible_ones_never_sampled():
    p = np.array([[0.0, 1.0, 1e-300, np.nextafter(1, 0), 0.5]])
    for temperature in (1e-3, 1.0):
        held = np.concatenate([stream(decoding(temperature=temperature), p, seed) for seed in range(300)])
        assert held.mean(axis=0)[:4].tolist() == [0, 1, 0, 1]
        assert 0.3 < held[:, 4].mean() < 0.7


def test_sampling_holds_at_most_one_button_of_a_group():
    rules = decoding(temperature=1.0, exclusive=(("left", "right"),))
    held = stream(rules, np.tile([0.5, 0.6, 0.7, 0.5, 0.5], (4000, 1)))
    left, right = held[:, 1], held[:, 2]
    assert not (left & right).any()
    assert right.mean() == pytest.approx(0.7, abs=0.03)  # it wins where both are drawn
    assert left.mean() == pytest.approx(0.6 * 0.3, abs=0.03)


@pytest.mark.parametrize("hysteresis", [0.0, 0.2])
def test_scores_on_recordings_are_without_sampling(hysteresis):
    p = np.random.default_rng(0).random((100, 5))
    rules = decoding(0.3, temperature=1.0, hysteresis=hysteresis)
    cold = decode_episodes(replace(rules, temperature=None), p, [60, 40])
    assert (decode_episodes(rules, p, [60, 40]) == cold).all()


def test_changing_what_is_returned_does_not_change_what_is_held():
    decoder = Decoder(decoding(hysteresis=0.3))
    decoder(np.full(5, 0.6))[:] = False
    assert decoder(np.full(5, 0.3)).all()


def test_a_decoding_comes_back_from_json():
    rules = decoding(0.4, thresholds={"attack": 0.3}, temperature=0.5, hysteresis=0.1, exclusive=(("left", "right"),))
    again = Decoding.from_dict(json.loads(json.dumps(rules.to_dict())))
    assert again == rules
    assert list(again.thresholds) == list(NAMES)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([], {}),
        (["threshold=0.4"], {"thresholds": dict.fromkeys(NAMES, 0.4)}),
        (["thresholds.attack=0.2", "threshold=0.4"], {"thresholds": dict.fromkeys(NAMES, 0.4) | {"attack": 0.2}}),
        (["thresholds.use=0.2"], {"thresholds": dict.fromkeys(NAMES, 0.6) | {"attack": 0.3, "use": 0.2}}),
        (["temperature=null"], {"temperature": None}),
        (["temperature=1", "temperature=2"], {"temperature": 2.0}),
        (["hysteresis=0"], {"hysteresis": 0.0}),
        (["exclusive=[]"], {"exclusive": ()}),
        (["exclusive=[[use, attack],[left,right]]"], {"exclusive": (("use", "attack"), ("left", "right"))}),
    ],
)
def test_an_override_changes_what_it_names(changes, expected):
    base = decoding(0.6, thresholds={"attack": 0.3}, temperature=0.5, hysteresis=0.1, exclusive=(("left", "right"),))
    assert base.override(changes) == replace(base, **expected)


@pytest.mark.parametrize("name", ["Key.space", "Key[0].x", "on", "0012", "a=b", "a b", "[x]", "${oc.env:HOME}"])
def test_an_override_sets_a_threshold_whatever_the_button_is_called(name):
    base = DecodeSettings(0.5, exclusive=((name, "other"),)).decoding([name, "other"])
    assert base.override([f"thresholds.{name}=0.4"]).thresholds == {name: 0.4, "other": 0.5}
    assert base.override([f"thresholds[{name}]=0.4"]).thresholds == {name: 0.4, "other": 0.5}
    assert base.override(["temperature=1"]) == replace(base, temperature=1.0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["threshold"], "--decode threshold is not KEY=VALUE"),
        (
            ["tempreature=1"],
            "did you mean 'temperature'? (known: axes, exclusive, hysteresis, temperature, threshold, ",
        ),
        (["thresholds.atack=0.3"], "unknown action 'atack'; did you mean 'attack'? (known: attack, forward, "),
        (["exclusive=[[left,rihgt]]"], "unknown action 'rihgt'; did you mean 'right'?"),
        (["threshold=0"], "=0.0 is out of range: between 0 and 1"),
        (["thresholds.attack=1"], "thresholds.attack=1.0 is out of range"),
        (["thresholds.attack=.nan"], "thresholds.attack=nan is out of range"),
        (["thresholds.attack.x=1"], "unknown action 'attack.x'; did you mean 'attack'?"),
        (["thresholds.attack=often"], "'often' of type 'str' could not be converted to Float"),
        (["thresholds=0.4"], "--decode thresholds=0.4: "),
        (["temperature=0"], "temperature=0.0 is out of range: more than 0"),
        (["temperature=.inf"], "temperature=inf is out of range"),
        (["hysteresis=-0.1"], "hysteresis=-0.1 is out of range"),
        (["thresholds.attack=0.2", "hysteresis=0.2"], "less than each threshold (attack: 0.2)"),
        (["exclusive=[left,right]"], "--decode exclusive=[left,right]: "),
        (["exclusive=[[left]]"], "exclusive=[[left]] is out of range: groups of two or more"),
        (["exclusive=[[left,left]]"], "exclusive=[[left,left]] is out of range"),
        (["exclusive=[[left,right],[right,use]]"], "each action in one of them at most"),
        (["exclusive=[[[left],right]]"], "unknown action '[left]'"),
        (["exclusive=[[left"], "--decode 'exclusive=[[left': "),
    ],
)
def test_bad_settings_are_one_line(changes, message):
    error = user_error(decoding().override, changes)
    assert message in error
    assert error.startswith(("--decode", "unknown key of --decode"))


def test_a_description_names_what_differs_from_the_default():
    assert decoding(0.5).describe() == "threshold 0.5"
    both = decoding(0.5, thresholds={"use": 0.4}, hysteresis=0.1, exclusive=(("left", "right"),))
    assert both.describe() == "thresholds of their own, hysteresis 0.1, one of left, right at most"
