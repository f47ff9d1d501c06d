"""Turns logits into actions by the rules of ``decode``."""

from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64

from BC_training.common.action import Action
from BC_training.common.axes import AxisBins
from BC_training.common.decode import Decoding


class Decoder:
    """Decodes an episode frame by frame. Its random draws follow from the episode's seed and the frame's number."""

    def __init__(self, decoding: Decoding, bins: AxisBins | None = None):
        self._decoding, self._bins = decoding, bins
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
            draws = self._generator(0).random(len(self._held))
        self._held = self.press(np.asarray(probabilities, np.float64), self._held, draws)
        self._frame += 1
        return self._held.copy()

    def move(self, logits: Float[np.ndarray, "X bins"]) -> Float32[np.ndarray, " X"]:
        """The amounts of the axes in the frame whose buttons come next, by a call."""
        assert self._bins is not None
        if self._temperature is None:
            return amounts(logits, self._bins, self._decoding.axes)
        # The largest of logits with Gumbel noise is a draw from their softmax (Gumbel, 1954).
        noise = self._generator(1).gumbel(size=logits.shape)
        return amounts(np.asarray(logits, np.float64) / self._temperature + noise, self._bins, "mode")

    def _generator(self, stream: int) -> np.random.Generator:
        """The draws of this frame, other ones for each ``stream``."""
        # Philox is a counter: no other frame has blocks of four numbers in common with this one.
        return np.random.Generator(np.random.Philox(key=self._seed, counter=(self._frame << 64) + (stream << 32)))

    def press(
        self,
        p: Float64[np.ndarray, "*B A"],
        held: Bool[np.ndarray, "*B A"],
        draws: Float64[np.ndarray, " A"] | None,
    ) -> Bool[np.ndarray, "*B A"]:
        """The buttons held in one frame, from probabilities ``p`` and the buttons held in the frame before.

        ``draws``, uniform in [0, 1), sample. float32 would round the thresholds that ``p`` is compared with.
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


def amounts(
    logits: Float[np.ndarray, "*N X bins"], bins: AxisBins, rule: Literal["mode", "mean"]
) -> Float32[np.ndarray, "*N X"]:
    """The amounts of axes: of each one's likeliest bin, the nearest to 0 of equally likely ones, or the mean."""
    of_bins = bins.amounts
    if rule == "mode":
        inner_first = np.argsort(np.abs(np.arange(bins.count) - bins.middle), kind="stable")
        likeliest = inner_first[np.asarray(logits)[..., inner_first].argmax(axis=-1)]
        return of_bins[np.arange(len(of_bins)), likeliest].astype(np.float32)
    shifted = np.exp(logits - np.max(logits, axis=-1, keepdims=True))
    return ((shifted * of_bins).sum(axis=-1) / shifted.sum(axis=-1)).astype(np.float32)


def decode_split(
    decoding: Decoding,
    probabilities: Float[np.ndarray, "N A"],
    axis_logits: Float[np.ndarray, "N X bins"],
    bins: AxisBins | None,
    lengths: Sequence[int],
) -> Action:
    """The actions of every frame of some episodes, as ``decode_episodes`` decodes their buttons."""
    axes = np.zeros((len(probabilities), 0), np.float32)
    if bins is not None:
        axes = amounts(axis_logits, bins, decoding.axes)
    return Action(decode_episodes(decoding, probabilities, lengths), axes)


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
