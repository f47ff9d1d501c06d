"""From probabilities to buttons: thresholds, sampling, hysteresis, and buttons that exclude each other."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any

import numpy as np

from BC_training.common.errors import UserError, unknown
from BC_training.common.settings.typed import build, parse_overrides


@dataclass(frozen=True)
class Decoding:
    """How the probabilities of a frame become the buttons that are held.

    With p the probability of a button, and h the hysteresis if it was held in the frame before, as decoded,
    else 0 (before an episode's first frame nothing is held):

    1. A button is wanted where p >= threshold - h: pressed at its threshold, and once held released only below
       threshold - hysteresis (a Schmitt trigger). With a temperature T it is wanted by chance instead, with
       probability sigmoid(logit(min(p + h, 1)) / T), whatever its threshold: 1 samples what the model says, less
       comes nearer to a threshold of 0.5, more to a coin.
    2. Of each exclusive group one wanted button at most is held: that with the greatest p - (threshold - h), the
       first named where these are equal.

    Attributes:
        thresholds: of every action, in the order of the actions; between 0 and 1, neither included.
        temperature: of the sampling, more than 0; None for none.
        hysteresis: 0 or more, less than each threshold, without which a button would never be released.
        exclusive: groups of two or more actions; an action is in one of them at most.

    Raises:
        UserError: a value out of range, or a group with an action that has no threshold.
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
        """JSON types."""
        return asdict(self) | {"exclusive": [list(group) for group in self.exclusive]}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "Decoding":
        """Reads what ``to_dict`` has returned, also by way of JSON."""
        return cls(**{**raw, "exclusive": tuple(map(tuple, raw["exclusive"]))})

    def override(self, changes: Sequence[str]) -> "Decoding":
        """This one with other settings.

        Args:
            changes: KEY=VALUE of ``DecodeSettings``: ``threshold=0.4`` of all actions, ``thresholds.attack=0.3``,
                which counts more, ``temperature=1``, ``hysteresis=0.1``, ``exclusive=[[turn_left,turn_right]]``.

        Raises:
            UserError: an unknown key or action, or a value of the wrong type or out of range.
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
        """The rules but for sampling, in a line: "threshold 0.5, hysteresis 0.1"."""
        values = set(self.thresholds.values())
        parts = [f"threshold {next(iter(values)):g}" if len(values) == 1 else "thresholds of their own"]
        if self.hysteresis:
            parts.append(f"hysteresis {self.hysteresis:g}")
        parts += [f"one of {', '.join(group)} at most" for group in self.exclusive]
        return ", ".join(parts)


@dataclass(frozen=True)
class DecodeSettings:
    """What makes a ``Decoding`` once the actions are known."""

    threshold: float = 0.5  # a button is pressed at this probability or above
    thresholds: dict[str, float] = field(default_factory=dict)  # of actions with another
    temperature: float | None = None  # of sampling; null: none
    hysteresis: float = 0.0  # a held button is released only this far below its threshold
    exclusive: tuple[tuple[str, ...], ...] = ()  # groups of actions of which one at most is held

    def decoding(self, action_names: Iterable[str]) -> Decoding:
        """The rules for ``action_names``.

        Raises:
            UserError: an action that is none of them, or a value out of range.
        """
        every = dict.fromkeys(action_names, self.threshold)
        for name in self.thresholds:
            if name not in every:
                raise unknown("action", name, every, "see thresholds")
        groups = tuple(map(tuple, self.exclusive))
        return Decoding(every | self.thresholds, self.temperature, self.hysteresis, groups)


class Decoder:
    """Decodes an episode frame by frame.

    What is drawn by chance depends on the episode's seed and on the number of the frame, on nothing else.
    """

    def __init__(self, decoding: Decoding):
        names = list(decoding.thresholds)
        self._temperature, self._hysteresis = decoding.temperature, decoding.hysteresis
        self._thresholds = np.array([decoding.thresholds[name] for name in names], np.float64)
        self._groups = [np.array([names.index(name) for name in group]) for group in decoding.exclusive]
        self.reset()

    def reset(self, seed: int = 0) -> None:
        """Starts an episode.

        Args:
            seed: of the episode, 0 or more; for sampling.
        """
        self._seed, self._frame = seed, 0
        self._held = np.zeros(len(self._thresholds), bool)

    def __call__(self, probabilities: np.ndarray) -> np.ndarray:
        """bool [A]: the buttons held in the next frame of the episode.

        Args:
            probabilities: float [A] in [0, 1].
        """
        draws = None
        if self._temperature is not None:
            # Philox counts: its blocks of four numbers of this frame begin where no other frame's do.
            generator = np.random.Generator(np.random.Philox(key=self._seed, counter=self._frame << 64))
            draws = generator.random(len(self._held))
        self._held = self.press(np.asarray(probabilities, np.float64), self._held, draws)
        self._frame += 1
        return self._held.copy()

    def press(self, p: np.ndarray, held: np.ndarray, draws: np.ndarray | None) -> np.ndarray:
        """bool [..., A]: the buttons held in one frame.

        Args:
            p: float64 [..., A] in [0, 1]. A float32 would round the thresholds it is compared with.
            held: bool [..., A], in the frame before.
            draws: float64 [A], uniform in [0, 1); None for no sampling.
        """
        bar = self._thresholds - self._hysteresis * held
        if draws is None or self._temperature is None:
            wanted = p >= bar
        else:
            raised = np.minimum(p + self._hysteresis * held, 1)
            with np.errstate(divide="ignore"):  # of 0 and 1 the logits are infinite, and right
                logits = np.log(raised) - np.log1p(-raised)
            wanted = draws < 0.5 + 0.5 * np.tanh(logits / (2 * self._temperature))  # the sigmoid, never overflowing
        for group in self._groups:
            margin = np.where(wanted[..., group], (p - bar)[..., group], -np.inf)
            wanted[..., group] &= np.arange(len(group)) == margin.argmax(axis=-1)[..., None]
        return wanted


def decode_episodes(decoding: Decoding, probabilities: np.ndarray, lengths: Sequence[int]) -> np.ndarray:
    """bool [N, A]: what a ``Decoder`` holds in every frame of some episodes.

    Without sampling, also where ``decoding`` has a temperature: scores on recordings do not depend on chance.

    Args:
        probabilities: float [N, A] in [0, 1], of all episodes in a row.
        lengths: frames of each; their sum is N.
    """
    decoder, p = Decoder(decoding), np.asarray(probabilities, np.float64)
    if not decoding.hysteresis:  # no frame depends on the one before
        return decoder.press(p, np.zeros(p.shape, bool), None)
    # All episodes at once, frame after frame, the longest first: those that have ended are at the end.
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
