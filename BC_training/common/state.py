"""The features of the game state that a model sees, and how they are fitted to the training split.

``dataset.state`` names attributes by kind (``settings/state.py``). ``StateFeatures.fit`` learns vocabularies,
means and standard deviations from the training episodes, and a checkpoint keeps them. ``encode`` makes
the features on the device; the host counts only what needs the whole episode.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Float32, Int32

from BC_training.common.errors import UserError, unknown
from BC_training.common.settings.state import RelativeConfig, StateConfig

if TYPE_CHECKING:
    from jax import Array
else:
    Array = Any  # see ``preprocess``


@dataclass(frozen=True)
class StateFeatures:
    """The features, with all that they learned from the training split.

    Attributes:
        vocabularies: the ids seen of each of ``config.categories``, ascending. The id at position
            i has the index i + 1, and every other id the index 0.
        means: one for each of ``config.standardized``.
        stds: likewise; 1 where the attribute never varies.
    """

    config: StateConfig
    vocabularies: tuple[tuple[float, ...], ...] = ()
    means: tuple[float, ...] = ()
    stds: tuple[float, ...] = ()

    @classmethod
    def fit(
        cls,
        config: StateConfig,
        names: Sequence[str],
        episodes: Iterable[tuple[str, Float32[np.ndarray, "_ S"]]],
        path: str,
    ) -> "StateFeatures":
        """Learns from the training episodes, each a name and its state.

        An attribute that is not among ``names``, a value that is not finite, or no value to learn from is a
        UserError, which names the dataset by ``path``.
        """
        for kind, name in config.uses():
            if name not in names:
                raise unknown("state attribute", name, names, f"dataset.state.{kind} names it; {path} has the others")
        columns = [names.index(name) for name in config.names]
        parts: list[list[np.ndarray]] = [[] for _ in columns]
        for episode, state in episodes:
            # By column: in rows, to gather one would read all.
            used = np.ascontiguousarray(state[:, columns].T)
            remedy = ", which dataset.state uses: repair or remove the episode, or leave the attribute out"
            require_finite(used.T, config.names, f"{path}/{episode}", remedy)
            for part, values in zip(parts, used, strict=True):
                part.append(values)

        def column(name: str) -> np.ndarray:
            seen = np.concatenate([np.zeros(0, np.float32), *parts[config.names.index(name)]])
            if not len(seen):
                raise UserError(
                    f"{path}: the training split has no values of '{name}' for dataset.state: record longer episodes"
                )
            return seen

        fitted = [_mean_and_std(column(name)) for name in config.standardized]
        return cls(
            config,
            tuple(tuple(np.unique(column(name)).tolist()) for name in config.categories),
            tuple(mean for mean, _ in fitted),
            tuple(std for _, std in fitted),
        )

    @property
    def size(self) -> int:
        """F, how many features ``encode`` makes of a frame's state, without the ids."""
        config = self.config
        return (
            len(config.ratios)
            + sum(1 + len(relative.target) for relative in config.relative)
            + 2 * (len(config.angles.radians) + len(config.angles.degrees))
            + len(config.since_change) * config.since_change_features
            + len(config.standardized)
        )

    @property
    def vocabulary_sizes(self) -> tuple[int, ...]:
        """How many indices each of the C categories has, with the one of unknown ids."""
        return tuple(len(vocabulary) + 1 for vocabulary in self.vocabularies)

    def encode(
        self,
        names: Sequence[str],
        state: Float32[Array, "*B S"],
        since_change: Float32[Array, "*B K"] | None,
    ) -> tuple[Float32[Array, "*B F"], Int32[Array, "*B C"]]:
        """Computes the features, in the order of the config's fields, and the ids, on the device.

        ``state`` is as recorded; ``since_change`` says how many frames ago each of ``config.since_change`` changed.
        """
        import jax.numpy as jnp

        config, parts = self.config, []

        def column(name: str) -> Array:
            return state[..., names.index(name)]

        for value, maximum in config.ratios:
            top = column(maximum)
            share = jnp.clip(column(value) / jnp.where(top > 0, top, 1), 0, 1)
            parts.append(jnp.where(top > 0, share, 0))
        for relative in config.relative:
            parts += _relative(relative, column)
        for name in config.angles.radians:
            parts += [jnp.cos(column(name)), jnp.sin(column(name))]
        for name in config.angles.degrees:
            parts += [jnp.cos(jnp.deg2rad(column(name))), jnp.sin(jnp.deg2rad(column(name)))]
        half = config.since_change_features // 2
        for i in range(len(config.since_change)):
            assert since_change is not None
            for k in range(half):  # wavelengths as in Vaswani et al., Attention is all you need, 2017
                phase = since_change[..., i] * 10_000.0 ** (-k / half)
                parts += [jnp.sin(phase), jnp.cos(phase)]
        for name, mean, std in zip(config.standardized, self.means, self.stds, strict=True):
            parts.append((column(name) - mean) / std)
        ids = []
        for name, vocabulary in zip(config.categories, self.vocabularies, strict=True):
            known = np.array(vocabulary, np.float32).reshape(*(1,) * (state.ndim - 1), -1)
            index = np.arange(1, known.size + 1, dtype=np.int32).reshape(known.shape)
            ids.append(jnp.sum(jnp.where(column(name)[..., None] == known, index, 0), axis=-1, dtype=jnp.int32))
        return (
            jnp.stack(parts, axis=-1) if parts else jnp.zeros((*state.shape[:-1], 0), jnp.float32),
            jnp.stack(ids, axis=-1) if ids else jnp.zeros((*state.shape[:-1], 0), jnp.int32),
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any]) -> "StateFeatures":
        return cls(
            StateConfig(**raw["config"]),
            tuple(tuple(ids) for ids in raw["vocabularies"]),
            tuple(raw["means"]),
            tuple(raw["stds"]),
        )


def require_finite(
    values: Float[np.ndarray, "N S"], names: Sequence[str], where: str, remedy: str, what: str = "state"
) -> None:
    """Raises a UserError if a value is NaN or infinite; it begins with ``where`` and ends with ``remedy``."""
    finite = np.isfinite(values)
    if not finite.all():
        bad = np.argwhere(~finite)
        frame, column = bad[0]
        raise UserError(
            f"{where}: {what} '{names[column]}' is {values[frame, column]} at frame {frame} ({len(bad)} such "
            f"value{'s' * (len(bad) > 1)}){remedy}"
        )


def frames_since_change(values: Float32[np.ndarray, "N K"]) -> Float32[np.ndarray, "N K"]:
    """How many frames ago, in a whole episode, each value last changed.

    It is 0 in a frame whose value differs from the one before. A value that has not changed yet
    counts from the first frame.
    """
    frames = np.arange(len(values))[:, None]
    changed = np.zeros(values.shape, bool)
    changed[1:] = values[1:] != values[:-1]
    return (frames - np.maximum.accumulate(np.where(changed, frames, 0), axis=0)).astype(np.float32)


class ChangeCounter:
    """``frames_since_change`` in play, frame by frame."""

    def __init__(self) -> None:
        self._values: np.ndarray | None = None
        self._since = np.zeros(0, np.float32)

    def count(self, values: Float32[np.ndarray, " K"]) -> Float32[np.ndarray, " K"]:
        """How many frames ago each value changed, given those of the next frame."""
        if self._values is None:
            self._since = np.zeros(len(values), np.float32)
        else:
            self._since = np.where(values == self._values, self._since + 1, 0).astype(np.float32)
        self._values = values.copy()
        return self._since


def _relative(config: RelativeConfig, column: Callable[[str], Array]) -> list[Array]:
    """log(1 + distance), and the unit vector as the one who faces the angle sees it; 0 at distance 0.

    The logarithm keeps near distances, which decide most, furthest apart. It needs no statistics,
    so a distance that training did not see stays in range.
    """
    import jax.numpy as jnp

    offset = [column(a) - column(b) for a, b in zip(config.target, config.origin, strict=True)]
    angle = column(config.angle)
    angle = jnp.deg2rad(angle) if config.unit == "degrees" else angle
    distance = jnp.sqrt(sum(x * x for x in offset))
    scale = jnp.where(distance > 0, 1 / jnp.where(distance > 0, distance, 1), 0)
    forward = offset[0] * jnp.cos(angle) + offset[1] * jnp.sin(angle)
    sideways = offset[1] * jnp.cos(angle) - offset[0] * jnp.sin(angle)
    return [jnp.log1p(distance), *(x * scale for x in (forward, sideways, *offset[2:]))]


def _mean_and_std(values: Float32[np.ndarray, " N"]) -> tuple[float, float]:
    """Both as float32 values; the standard deviation is 1 where all values are the same."""
    exact = values.astype(np.float64)  # in which sums of equal float32 do not round
    mean, std = np.float32(exact.mean()), np.float32(exact.std())
    return float(mean), float(std) if std > 0 else 1.0
