"""Dataclasses come back from JSON as they were, and nothing else passes for one."""

import json
from dataclasses import dataclass

import pytest

from BC_training.common.decode import Decoding
from BC_training.common.json_object import JsonObject


@dataclass(frozen=True)
class Inner(JsonObject):
    share: float | None


@dataclass(frozen=True)
class Outer(JsonObject):
    name: str
    count: int
    inner: Inner
    others: dict[str, list[Inner]]
    ends: tuple[float, float] | None
    decoding: Decoding
    is_good: bool = False
    note: str | None = None
    before: "Outer | None" = None


RULES = Decoding({"a": 0.5, "b": 0.25}, exclusive=(("a", "b"),))
FIRST = Outer("x", 1, Inner(0.5), {"k": [Inner(None), Inner(1.0)]}, (0.0, 1.0), RULES)


def test_an_object_comes_back_from_json():
    whole = Outer("y", 0, Inner(None), {}, None, RULES, True, "n", FIRST)
    for found in (FIRST, whole):
        assert Outer.from_dict(json.loads(json.dumps(found.to_dict()))) == found
    assert Outer.from_dict(FIRST.to_dict() | {"decoding": RULES, "unknown": 3}) == FIRST


def test_a_field_is_absent_while_it_is_none_by_default():
    assert FIRST.to_dict().keys() == {"name", "count", "inner", "others", "ends", "decoding", "is_good"}
    assert FIRST.to_dict()["inner"] == {"share": 0.5}
    assert Inner(None).to_dict() == {"share": None}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 3}, "name is 3, not str"),
        ({"count": True}, "count is True, not int"),
        ({"count": 1.5}, "count is 1.5, not int"),
        ({"inner": None}, "inner is None, not a mapping"),
        ({"inner": {}}, "inner.share is missing"),
        ({"inner": {"share": "<b>"}}, "inner.share is '<b>', not float"),
        ({"inner": {"share": float("nan")}}, "inner.share is nan, not float"),
        ({"inner": {"share": True}}, "inner.share is True, not float"),
        ({"others": []}, "others is "),
        ({"others": {"k": [{"share": []}]}}, "others.k.share is "),
        ({"ends": [1.0]}, "ends is "),
        ({"ends": [1.0, "2"]}, "ends is '2', not float"),
        ({"decoding": {"thresholds": {}}}, "decoding: "),
        ({"is_good": 1}, "is_good is 1, not bool"),
        ({"before": {"name": "z"}}, "before.count is missing"),
    ],
)
def test_a_value_of_another_type_is_refused_by_its_name(change, message):
    with pytest.raises(ValueError, match=r"^") as error:
        Outer.from_dict(FIRST.to_dict() | change)
    assert str(error.value).startswith(message)


def test_something_else_than_an_object_is_refused():
    with pytest.raises(ValueError, match="it is \\['a'\\], not a mapping"):
        Inner.from_dict(["a"])
