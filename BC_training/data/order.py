"""Which samples a step sees: a pure function of (seed, step).

So there is no iterator state to save, and the global batch does not depend on the number of devices and processes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from jaxtyping import Float64, Int, Int64

from BC_training.common.errors import UserError

_ROUNDS = 6
_GOLDEN = (5**0.5 - 1) / 2  # its multiples, modulo 1, are spread evenly however many there are


@dataclass(frozen=True, eq=False)
class SampleOrder:
    """Visits each of ``num_samples`` once an epoch, shuffled, and leaves out the last partial batch.

    With oversampling an epoch has ``extra`` more visits, which the ``rare`` samples take in turn.
    With weights an epoch has as many visits as without, of each sample its weight, rounded down or up, and over the
    epochs exactly: "systematic sampling", a visit at every whole number along the summed weights, from a start that
    each epoch moves.
    A batch is computed from its step, in a time that hardly grows with the dataset.

    Attributes:
        batch_size: samples of the global batch.
        rare: int64 [R], the samples that are visited more often.
        targets_per_sample: how many frames of a sample are trained on. An epoch has that many times
            fewer visits, so that it still trains on about as many frames as the dataset has.
        weight_ends: float64 [N], the summed weights up to and with each sample, N in all; not with ``rare``.
    """

    num_samples: int
    batch_size: int
    seed: int
    rare: Int64[np.ndarray, " R"] = field(default_factory=lambda: np.empty(0, np.int64))
    extra: int = 0
    targets_per_sample: int = 1
    weight_ends: Float64[np.ndarray, " N"] | None = None

    def __post_init__(self) -> None:
        if self.batch_size * self.targets_per_sample > self.num_samples:
            windows = f" windows of {self.targets_per_sample} frames" if self.targets_per_sample > 1 else ""
            raise UserError(
                f"training.batch_size={self.batch_size}{windows} is larger than the training set ({self.num_samples} "
                "frames): lower it or record more"
            )

    @property
    def epoch_size(self) -> int:
        """How many visits there are to choose an epoch's from, with those of the partial batch."""
        return self.num_samples + self.extra

    @property
    def steps_per_epoch(self) -> int:
        return self.epoch_size // self.targets_per_sample // self.batch_size

    def dispatches(self, epoch: int, size: int, start: int = 0) -> list[range]:
        """An epoch's steps from ``start`` on, in ranges of ``size`` and single steps before and after them.

        The ranges begin at the same steps whatever ``start`` is, so that a resumed training runs
        the same programs as one that was never stopped.
        """
        first, last = epoch * self.steps_per_epoch, (epoch + 1) * self.steps_per_epoch
        start = max(start, first)
        aligned = min(first + -(-(start - first) // size) * size, last)
        whole = last - (last - aligned) % size
        before, after = ([range(s, s + 1) for s in range(*ends)] for ends in ((start, aligned), (whole, last)))
        return before + [range(s, s + size) for s in range(aligned, whole, size)] + after

    def batches(self, dispatches: Sequence[range]) -> Iterator[Int64[np.ndarray, "steps batch_size"]]:
        """The samples of each dispatch's steps."""
        return (np.stack([self.batch(step) for step in steps]) for steps in dispatches)

    def batch(self, step: int) -> Int64[np.ndarray, " batch_size"]:
        """The samples of ``step``, which is counted from 0 over all epochs."""
        epoch, position = divmod(step, self.steps_per_epoch)
        start = position * self.batch_size
        visits = permute(np.arange(start, start + self.batch_size), self.epoch_size, self.seed, epoch)
        if self.extra:
            # Epochs take turns where `extra` is no multiple of the number of rare samples.
            turn = (visits - self.num_samples + epoch * self.extra) % len(self.rare)
            visits = np.where(visits < self.num_samples, visits, self.rare[turn])
        if self.weight_ends is not None:
            places = visits + (0.5 + epoch * _GOLDEN) % 1
            visits = np.minimum(np.searchsorted(self.weight_ends, places, side="right"), self.num_samples - 1)
        return visits


def batches_in_order(num_samples: int, batch_size: int, devices: int) -> Iterator[Int64[np.ndarray, " B"]]:
    """All samples in order, in batches of ``batch_size`` rounded up to a multiple of ``devices``.

    The last batch repeats its end, so that one compiled shape serves all.
    """
    size = -(-min(batch_size, num_samples) // devices) * devices
    return (np.minimum(np.arange(i, i + size), num_samples - 1) for i in range(0, num_samples, size))


def permute(positions: Int[np.ndarray, " n"], size: int, seed: int, epoch: int) -> Int64[np.ndarray, " n"]:
    """Sends ``positions``, in [0, size), through a pseudo-random permutation of ``range(size)``.

    It needs no table: it mixes the bits of a position by odd multiplications and shifted exclusive
    ors, each a bijection of the numbers with that many bits, and mixes a result of ``size`` or more
    again until it is smaller ("cycle walking": Black and Rogaway, Ciphers with arbitrary finite
    domains, 2002).
    """
    bits = max((size - 1).bit_length(), 6)
    constants = _constants(seed, epoch)
    mixed = _mix(positions.astype(np.uint64), bits, constants)
    while (outside := np.flatnonzero(mixed >= size)).size:
        mixed[outside] = _mix(mixed[outside], bits, constants)
    return mixed.astype(np.int64)


def _mix(x: np.ndarray, bits: int, constants: list[tuple[np.uint64, np.uint64]]) -> np.ndarray:
    mask, shift = np.uint64((1 << bits) - 1), np.uint64((bits + 1) // 2)
    for factor, offset in constants:
        x = (x * factor + offset) & mask
        x = x ^ (x >> shift)
    return x


@lru_cache(maxsize=4)
def _constants(seed: int, epoch: int) -> list[tuple[np.uint64, np.uint64]]:
    words = np.random.SeedSequence([seed, epoch]).generate_state(2 * _ROUNDS, np.uint64)
    return [(words[2 * i] | np.uint64(1), words[2 * i + 1]) for i in range(_ROUNDS)]
