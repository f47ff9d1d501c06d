"""What a sweep draws is read from overrides."""

import math
import sys
from io import StringIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from BC_training.common.config import load_config
from BC_training.common.errors import UserError
from BC_training.experiments.search_space import Choice, Range, divide, parse_space
from BC_training.experiments.sweep import Sweep, sweep

BASE = load_config("configs/pure_cnn.yaml")


def read(*items):
    plain, drawn = divide(items)
    return plain, parse_space(drawn, load_config("configs/pure_cnn.yaml", plain))


def test_each_form_is_read_by_the_type_of_its_setting():
    plain, space = read(
        *("training.learning_rate=log:1e-4..1e-2", "model.dropout=0..0.5", "training.batch_size=log:16..128"),
        *("training.loss=bce | focal", "training.ema_decay=null|0.9|0.99", "model.conv_features=[4,8]|[8,16]"),
        *("evaluation.thresholds.attack=0.1..0.9", "training.augmentation.crop=0..8", "model.name=pure_cnn|vit_policy"),
        *("dataset.path=../x.zarr", "logging.run_name='a|b'"),
    )
    assert plain == ["dataset.path=../x.zarr", "logging.run_name='a|b'"]
    assert space == {
        "training.learning_rate": Range(1e-4, 1e-2, log=True),
        "model.dropout": Range(0.0, 0.5, log=False),
        "training.batch_size": Range(16, 128, log=True),
        "training.loss": Choice(("bce", "focal")),
        "training.ema_decay": Choice(("null", "0.9", "0.99")),
        "model.conv_features": Choice(("[4,8]", "[8,16]")),
        "evaluation.thresholds.attack": Range(0.1, 0.9, log=False),
        "training.augmentation.crop": Range(0, 8, log=False),
        "model.name": Choice(("pure_cnn", "vit_policy")),
    }
    whole = {key for key, of in space.items() if isinstance(of, Range) and of.is_whole}
    assert whole == {"training.batch_size", "training.augmentation.crop"}


@given(
    st.tuples(st.floats(allow_nan=False, allow_infinity=False), st.floats(allow_nan=False, allow_infinity=False)),
    st.booleans(),
)
def test_a_range_of_numbers_is_read_as_written_or_refused(ends, log):
    low, high = ends
    _, drawn = divide([f"model.dropout={'log:' * log}{low!r}..{high!r}"])
    if low < high and (low > 0 or not log):
        (found,) = parse_space(drawn, BASE).values()
        assert found == Range(low, high, log)
        assert parse_space({"model.dropout": str(found)}, BASE) == {"model.dropout": found}
    else:
        with pytest.raises(UserError, match=r"model\.dropout"):
            parse_space(drawn, BASE)


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.floats(0, 1), st.booleans())
def test_the_place_of_a_value_in_a_range_rises_from_0_to_1(low, width, share, log):
    of = Range(low, low + width, log)
    places = [of.place(str(value)) for value in (low, low + share * width, low + width)]
    assert places[0] == 0
    assert math.isclose(places[2], 1)
    assert places == sorted(places)


@given(st.lists(st.integers(1, 10**6), min_size=2, unique=True))
def test_values_to_choose_from_are_those_written(values):
    key = "training.batch_size"
    _, drawn = divide([f"{key}={'|'.join(map(str, values))}"])
    assert parse_space(drawn, BASE) == {key: Choice(tuple(map(str, values)))}


@pytest.mark.parametrize(
    ("items", "message"),
    [
        (["training.learning_rat=0..1"], "did you mean 'learning_rate'"),
        (["modl.dropout=0..1"], "did you mean 'model'"),
        (["training.loss=bce|focl"], r"training.loss=focl.*\['bce', 'focal'\]"),
        (["training.batch_size=16|many"], "training.batch_size=many.*Integer"),
        (["model.name=pure_cnn|vit_polcy"], "did you mean 'vit_policy'"),
        (["training.loss=0..1"], r"training.loss is no number: write its values, training.loss=A\|B"),
        (["system.deterministic=0..1"], "system.deterministic is no number"),
        (["training=0..1"], "training is no number"),
        (["training.batch_size.x=0..1"], "training.batch_size is no section"),
        (["training.batch_size=16..1e2"], "training.batch_size is a whole number"),
        (["model.dropout=0.5..0.5"], "0.5 is not below 0.5"),
        (["model.dropout=0.5..0.1"], "0.5 is not below 0.1"),
        (["model.dropout=1...5"], "1 is not below .5"),
        (["model.dropout=0..1e999"], "too large"),
        (["model.dropout=log:0..0.5"], "begins above 0"),
        (["model.dropout=log:0.5"], "'model.dropout=log:0.5' is no range"),
        (["training.loss=bce|"], "is empty or there twice"),
        (["training.loss=bce|bce"], "is empty or there twice"),
        (["training.loss=[bce|focal"], r"'training.loss=\[bce'"),
        (["training.loss=bce|focal", "training.loss=bce"], "training.loss is set twice"),
        (["training.loss=bce", "training.loss=bce|focal"], "training.loss is set twice"),
        (["logging.run_name=a|b"], "logging.run_name is not for a sweep to draw"),
        (["training.resume=auto|never"], "training.resume is not for a sweep to draw"),
        (["=1..2"], "is not KEY=VALUE"),
        (["training.learning_rate=0.1"], "there is nothing to draw"),
        ([], "there is nothing to draw"),
    ],
)
def test_faulty_ranges_are_refused_by_their_key(items, message):
    with pytest.raises(UserError, match=message):
        read(*items)


@pytest.mark.parametrize(
    ("items", "objective", "message"),
    [
        ([], "macro_f", "did you mean 'macro_f1'"),
        ([], "rollout", "add evaluation.rollout.every_n_epochs=1"),
        (["evaluation.rollout=null"], "rollout", "add evaluation.rollout.every_n_epochs=1"),
        (["training.resume=never"], None, "sweep goes on by itself"),
        (["training.learning_rat=1"], None, "did you mean 'learning_rate'"),
    ],
)
def test_what_does_not_go_with_a_sweep_is_refused(items, objective, message):
    with pytest.raises(UserError, match=message):
        Sweep.load("configs/pure_cnn.yaml", ["model.dropout=0..0.5", *items], objective)


def test_a_sweep_without_trials_or_optuna_is_refused_before_anything_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    plan = Sweep.load("configs/pure_cnn.yaml", ["model.dropout=0..0.5"])
    with pytest.raises(UserError, match="--trials 0"):
        sweep(plan, Console(file=StringIO()), trials=0)
    monkeypatch.setitem(sys.modules, "optuna", None)
    monkeypatch.delitem(sys.modules, "BC_training.experiments.study", raising=False)
    with pytest.raises(UserError, match="needs the package optuna: install it with 'uv sync --extra scale'"):
        sweep(plan, Console(file=StringIO()), trials=1)
    assert not list(tmp_path.iterdir())
