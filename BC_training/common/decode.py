"""Turns probabilities into buttons by thresholds, sampling, hysteresis and groups of exclusive buttons."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Bool, Float, Float64

from BC_training.common.errors import UserError, unknown
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

    def __post_init__(self) -> None:
        for name, value in self.thresholds.items():
            number = isinstance(value, int | float)
            _require(number and 0 < value < 1, f"thresholds.{name}", value, "between 0 and 1")
        heat = self.temperature
        rule = "more than 0, or null for no sampling"
        _require(heat is None or 0 < heat < math.inf, "temperature", heat, rule)
        lowest = min(self.thresholds, key=lambda name: self.thresholds[name])
        rule = f"0 or more, and less than each threshold ({lowest}: {self.thresholds[lowest]:g})"
        _require(0 <= self.hysteresis < self.thresholds[lowest], "hysteresis", self.hysteresis, rule)
        grouped = [*chain(*self.exclusive)]
        for name in grouped:
            if not isinstance(name, str) or name not in self.thresholds:
                raise unknown("action", _listed(name), self.thresholds, "see exclusive")
        sizes = all(len(group) > 1 for group in self.exclusive)
        rule = "groups of two or more actions, each action in one of them at most"
        _require(sizes and len(set(grouped)) == len(grouped), "exclusive", _listed(self.exclusive), rule)

    def to_dict(self) -> dict[str, Any]:
        """Returns JSON types."""
        return asdict(self) | {"exclusive": [list(group) for group in self.exclusive]}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "Decoding":
        """Reads what ``to_dict`` returned, also through JSON."""
        return cls(**{**raw, "exclusive": tuple(map(tuple, raw["exclusive"]))})

    def override(self, changes: Sequence[str]) -> "Decoding":
        """Returns these rules with other settings.

        Args:
            changes: KEY=VALUE of ``DecodeSettings``, such as ``threshold=0.4`` for all buttons,
                ``thresholds.attack=0.3``, which takes precedence, or ``exclusive=[[turn_left,turn_right]]``.

        Raises:
            UserError: an unknown key or button, or a value of the wrong type or out of range.
        """
        for change in changes:
            if "=" not in change:
                raise UserError(f"--decode {change} is not KEY=VALUE; write for example --decode threshold=0.4")
        kept = {} if any(change.startswith("threshold=") for change in changes) else dict(self.thresholds)
        present = DecodeSettings(0.5, kept, self.temperature, self.hysteresis, self.exclusive)
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
        values = set(self.thresholds.values())
        parts = [f"threshold {next(iter(values)):g}" if len(values) == 1 else "thresholds of their own"]
        if self.hysteresis:
            parts.append(f"hysteresis {self.hysteresis:g}")
        parts += [f"one of {', '.join(group)} at most" for group in self.exclusive]
        return ", ".join(parts)


@no_type_check  # OmegaConf makes its groups lists
@dataclass(frozen=True)
class DecodeSettings:
    """Settings that make a ``Decoding`` once the buttons are known."""

    threshold: float = 0.5  # a button is pressed at this probability or above
    thresholds: dict[str, float] = field(default_factory=dict)  # for buttons with another threshold
    temperature: float | None = None  # of sampling; null does not sample
    hysteresis: float = 0.0  # a held button is released only this far below its threshold
    exclusive: tuple[tuple[str, ...], ...] = ()  # groups of buttons of which at most one is held

    def decoding(self, action_names: Iterable[str]) -> Decoding:
        """The rules for ``action_names``.

        Raises:
            UserError: an unknown button, or a value out of range.
        """
        every = dict.fromkeys(action_names, self.threshold)
        for name in self.thresholds:
            if name not in every:
                raise unknown("action", name, every, "see thresholds")
        groups = tuple(map(tuple, self.exclusive))
        return Decoding(every | self.thresholds, self.temperature, self.hysteresis, groups)


class Decoder:
    """Decodes an episode frame by frame. Its random draws follow from the episode's seed and the frame's number."""

    def __init__(self, decoding: Decoding):
        names = list(decoding.thresholds)
        self._temperature, self._hysteresis = decoding.temperature, decoding.hysteresis
        self._thresholds = np.array([decoding.thresholds[name] for name in names], np.float64)
        self._groups = [np.array([names.index(name) for name in group]) for group in decoding.exclusive]
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Starts an episode; ``seed``, 0 or more, is for sampling."""
        self._seed, self._frame = seed, 0
        self._held = np.zeros(len(self._thresholds), bool)

    def __call__(self, probabilities: Float[np.ndarray, " A"]) -> Bool[np.ndarray, " A"]:
        """The buttons held in the next frame of the episode, from probabilities in [0, 1]."""
        draws = None
        if self._temperature is not None:
            # Philox is a counter: no other frame has blocks of four numbers in common with this one.
            generator = np.random.Generator(np.random.Philox(key=self._seed, counter=self._frame << 64))
            draws = generator.random(len(self._held))
        self._held = self.press(np.asarray(probabilities, np.float64), self._held, draws)
        self._frame += 1
        return self._held.copy()

    def press(
        self,
        p: Float64[np.ndarray, "*B A"],
        held: Bool[np.ndarray, "*B A"],
        draws: Float64[np.ndarray, " A"] | None,
    ) -> Bool[np.ndarray, "*B A"]:
        """The buttons held in one frame.

        Args:
            p: probabilities. A float32 would round the thresholds that it is compared with.
            held: the buttons held in the frame before.
            draws: uniform in [0, 1); None does not sample.
        """
        bar = self._thresholds - self._hysteresis * held
        if draws is None or self._temperature is None:
            wanted = p >= bar
        else:
            raised = np.minimum(p + self._hysteresis * held, 1)
            with np.errstate(divide="ignore"):  # the logits of 0 and 1 are infinite, which is right
                logits = np.log(raised) - np.log1p(-raised)
            wanted = draws < 0.5 + 0.5 * np.tanh(logits / (2 * self._temperature))  # the sigmoid, without overflow
        for group in self._groups:
            margin = np.where(wanted[..., group], (p - bar)[..., group], -np.inf)
            wanted[..., group] &= np.arange(len(group)) == margin.argmax(axis=-1)[..., None]
        return wanted


def decode_episodes(
    decoding: Decoding, probabilities: Float[np.ndarray, "N A"], lengths: Sequence[int]
) -> Bool[np.ndarray, "N A"]:
    """The buttons that a ``Decoder`` holds in every frame of some episodes.

    It does not sample, even where ``decoding`` has a temperature: scores on recordings do not depend on chance.

    Args:
        probabilities: in [0, 1], of all episodes in a row.
        lengths: the frames of each episode; their sum is N.
    """
    decoder, p = Decoder(decoding), np.asarray(probabilities, np.float64)
    if not decoding.hysteresis:  # no frame depends on the one before
        return decoder.press(p, np.zeros(p.shape, bool), None)
    # All episodes advance together, the longest first, so that those that have ended are at the end.
    counts = np.asarray(lengths)
    longest_first = np.argsort(-counts, kind="stable")
    starts, counts = (np.cumsum(counts) - counts)[longest_first], counts[longest_first]
    pressed, held = np.zeros(p.shape, bool), np.zeros((len(counts), p.shape[1]), bool)
    for frame in range(counts.max(initial=0)):
        rows = starts[counts > frame] + frame
        held = decoder.press(p[rows], held[: len(rows)], None)
        pressed[rows] = held
    return pressed


def _require(condition: bool, key: str, value: Any, rule: str) -> None:
    if not condition:
        raise UserError(f"{key}={value} is out of range: {rule}")


def _listed(groups: Any) -> str:
    if isinstance(groups, list | tuple):
        return f"[{','.join(map(_listed, groups))}]"
    return str(groups)
