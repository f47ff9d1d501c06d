"""The rules that turn probabilities into actions: thresholds, sampling, hysteresis, exclusive groups, and axes."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from typing import Any, Literal

from BC_training.common.errors import UserError, unknown
from BC_training.common.settings.rules import setting
from BC_training.common.settings.typed import build, parse_overrides


@dataclass(frozen=True)
class Decoding:
    """How the probabilities of a frame become the buttons that are held.

    Let p be the probability of a button, and h the hysteresis if the button was held in the frame before, as
    decoded, and else 0. Before an episode's first frame nothing is held.

    1. A button is wanted if p >= threshold - h. It is pressed at its threshold, and once held it is released only
       below threshold - hysteresis (a Schmitt trigger). With a temperature T it is instead wanted with probability
       sigmoid(logit(min(p + h, 1)) / T), whatever its threshold. T = 1 samples the model's probabilities; less
       comes nearer to a threshold of 0.5, more to a coin.
    2. Each exclusive group holds at most one wanted button, the one with the greatest p - (threshold - h). Among
       equals the first in the group wins.

    An axis has the amount of its likeliest bin ("mode"), or the mean of its bins' amounts by their probabilities
    ("mean"). With a temperature T a bin is instead drawn, with probabilities of the logits divided by T.

    Attributes:
        thresholds: one for every button, in the order of the buttons, above 0 and below 1.
        temperature: above 0; None does not sample.
        hysteresis: 0 or more, and less than each threshold; otherwise a button would never be released.
        exclusive: groups of two or more buttons; no button is in two of them.

    Raises:
        UserError: a value out of range, or a group with a button that has no threshold.
    """

    thresholds: Mapping[str, float]
    temperature: float | None = None
    hysteresis: float = 0.0
    exclusive: tuple[tuple[str, ...], ...] = ()
    axes: Literal["mode", "mean"] = "mode"

    def __post_init__(self) -> None:
        for name, value in self.thresholds.items():
            number = isinstance(value, int | float)
            _require(number and 0 < value < 1, f"thresholds.{name}", value, "between 0 and 1")
        heat = self.temperature
        rule = "more than 0, or null for no sampling"
        _require(heat is None or 0 < heat < math.inf, "temperature", heat, rule)
        name, lowest = min(self.thresholds.items(), key=lambda item: item[1], default=("", 1.0))
        rule = f"0 or more, and less than each threshold ({name}: {lowest:g})"
        _require(0 <= self.hysteresis < lowest, "hysteresis", self.hysteresis, rule)
        grouped = [*chain(*self.exclusive)]
        for name in grouped:
            if not isinstance(name, str) or name not in self.thresholds:
                raise unknown("action", _listed(name), self.thresholds, "see exclusive")
        sizes = all(len(group) > 1 for group in self.exclusive)
        rule = "groups of two or more actions, each action in one of them at most"
        _require(sizes and len(set(grouped)) == len(grouped), "exclusive", _listed(self.exclusive), rule)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"exclusive": [list(group) for group in self.exclusive]}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "Decoding":
        """Reads what ``to_dict`` returned, also through JSON."""
        return cls(**{**raw, "exclusive": tuple(map(tuple, raw["exclusive"]))})

    def override(self, changes: Sequence[str]) -> "Decoding":
        """Returns these rules with other settings.

        ``changes`` are KEY=VALUE of ``DecodeSettings``, such as ``threshold=0.4`` for all buttons,
        ``thresholds.attack=0.3``, which takes precedence, or ``exclusive=[[turn_left,turn_right]]``. An unknown
        key or button, or a value of the wrong type or out of range, is a UserError.
        """
        for change in changes:
            if "=" not in change:
                raise UserError(f"--decode {change} is not KEY=VALUE; write for example --decode threshold=0.4")
        kept = {} if any(change.startswith("threshold=") for change in changes) else dict(self.thresholds)
        present = DecodeSettings(0.5, kept, self.temperature, self.hysteresis, self.exclusive, self.axes)
        given = parse_overrides(changes, DecodeSettings, "--decode")
        for key in given:
            if key not in asdict(present):
                raise unknown("key of --decode", key, asdict(present))
        thresholds = given.get("thresholds")
        given |= {"thresholds": kept | thresholds} if isinstance(thresholds, dict) else {}
        settings = build(DecodeSettings, asdict(present) | given, f"--decode {' '.join(changes)}")
        try:
            return settings.decoding(self.thresholds)
        except UserError as error:
            raise UserError(f"--decode: {error}") from error

    def describe(self) -> str:
        """The rules except sampling in a line, such as "threshold 0.5, hysteresis 0.1"."""
        values = sorted(set(self.thresholds.values()))
        parts = [f"threshold {values[0]:g}" if len(values) == 1 else "thresholds of their own"] if values else []
        parts += ["axes by their mean"] if self.axes == "mean" else []
        if self.hysteresis:
            parts.append(f"hysteresis {self.hysteresis:g}")
        parts += [f"one of {', '.join(group)} at most" for group in self.exclusive]
        return ", ".join(parts)


@dataclass(frozen=True)
class DecodeSettings:
    """Settings that make a ``Decoding`` once the buttons are known."""

    threshold: float = setting(0.5, scores=("buttons", "rollout"))  # a button is pressed at this probability or above
    # the thresholds of buttons that have another
    thresholds: dict[str, float] = setting(factory=dict, scores=("buttons", "rollout"))
    temperature: float | None = setting(None, scores=("rollout",))  # samples the buttons; null does not sample
    # a held button is released only this far below its threshold
    hysteresis: float = setting(0.0, scores=("buttons", "rollout"))
    # groups of buttons of which at most one is held
    exclusive: tuple[tuple[str, ...], ...] = setting((), scores=("buttons", "rollout"))
    # the amount of an axis: that of the likeliest bin, or the mean
    axes: Literal["mode", "mean"] = setting("mode", scores=("buttons", "rollout"))

    def decoding(self, action_names: Iterable[str]) -> Decoding:
        """The rules for ``action_names``; a UserError for an unknown button or a value out of range."""
        every = dict.fromkeys(action_names, self.threshold)
        for name in self.thresholds:
            if name not in every:
                raise unknown("action", name, every, "see thresholds")
        groups = tuple(map(tuple, self.exclusive))
        return Decoding(every | self.thresholds, self.temperature, self.hysteresis, groups, self.axes)


def _require(condition: bool, key: str, value: Any, rule: str) -> None:
    if not condition:
        raise UserError(f"{key}={value} is out of range: {rule}")


def _listed(groups: Any) -> str:
    if isinstance(groups, list | tuple):
        return f"[{','.join(map(_listed, groups))}]"
    return str(groups)
