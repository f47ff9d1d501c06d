"""The game state as a model sees it: the features, and what of them is fitted to the training split.

``dataset.state`` names attributes by kind (``state_config.py``). ``StateFeatures.fit`` learns vocabularies,
means and standard deviations from the training episodes; a checkpoint keeps them. ``encode`` makes
the features on the device; only what needs the whole episode is counted on the host.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from BC_training.common.errors import UserError, unknown
from BC_training.common.settings.state import RelativeConfig, StateConfig

if TYPE_CHECKING:
    import jax  # not at run time: see ``preprocess``


@dataclass(frozen=True)
class StateFeatures:
    """The features with what they learned from the training split; JSON through ``to_dict``.

    Attributes:
        vocabularies: of each of ``config.categories`` the ids seen, ascending; the id at position
            i has the index i + 1, and every other id 0.
        means: of each of ``config.standardized``.
        stds: likewise, 1 where the attribute never varies.
    """

    config: StateConfig
    vocabularies: tuple[tuple[float, ...], ...] = ()
    means: tuple[float, ...] = ()
    stds: tuple[float, ...] = ()

    @classmethod
    def fit(
        cls, config: StateConfig, names: Sequence[str], episodes: Iterable[tuple[str, np.ndarray]], path: str
    ) -> "StateFeatures":
        """Learns from the training episodes, and from no others.

        Args:
            names: the dataset's S attributes.
            episodes: (name, state float32 [N, S]) of each.
            path: of the dataset, for messages.

        Raises:
            UserError: an attribute that does not exist, a value that is not finite, or no value
                to learn from.
        """
        for kind, name in config.uses():
            if name not in names:
                raise unknown("state attribute", name, names, f"dataset.state.{kind} names it; {path} has the others")
        columns = [names.index(name) for name in config.names]
        parts: list[list[np.ndarray]] = [[] for _ in columns]
        for episode, state in episodes:
            # By column: in rows, to gather one would read all.
            used = np.ascontiguousarray(state[:, columns].T)
            require_finite(used.T, config.names, f"{path}/{episode}")
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
        """F, how many numbers ``encode`` makes of a frame's state, ids aside."""
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
        """Of each of C categories how many indices there are, that of unknown ids among them."""
        return tuple(len(vocabulary) + 1 for vocabulary in self.vocabularies)

    def encode(
        self, names: Sequence[str], state: "jax.Array", since_change: "jax.Array | None"
    ) -> "tuple[jax.Array, jax.Array]":
        """The features, computed in float32, on the device.

        Args:
            names: the S attributes.
            state: float32 [..., S] as recorded.
            since_change: float32 [..., K], frames since each of ``config.since_change`` changed.

        Returns:
            float32 [..., F], in the order of the config's fields, and int32 [..., C].
        """
        import jax.numpy as jnp

        config, parts = self.config, []

        def column(name: str) -> "jax.Array":
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


def require_finite(state: np.ndarray, names: Sequence[str], where: str) -> None:
    """Raises a UserError where a value of state [N, S] is NaN or infinite.

    Args:
        where: what the rows are, for the message.
    """
    finite = np.isfinite(state)
    if not finite.all():
        bad = np.argwhere(~finite)
        frame, column = bad[0]
        raise UserError(
            f"{where}: state '{names[column]}' is {state[frame, column]} at frame {frame} ({len(bad)} such "
            f"value{'s' * (len(bad) > 1)}), which dataset.state uses: repair or remove the episode, or leave the "
            "attribute out"
        )


def frames_since_change(values: np.ndarray) -> np.ndarray:
    """Of a whole episode, how many frames ago each value became what it is.

    Args:
        values: float32 [N, K].

    Returns:
        float32 [N, K], 0 in a frame whose value differs from the one before; from the first frame
        on where it has not changed yet.
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

    def count(self, values: np.ndarray) -> np.ndarray:
        """float32 [K] for the next frame's values, float32 [K]."""
        if self._values is None:
            self._since = np.zeros(len(values), np.float32)
        else:
            self._since = np.where(values == self._values, self._since + 1, 0).astype(np.float32)
        self._values = values.copy()
        return self._since


def _relative(config: RelativeConfig, column: Any) -> "list[jax.Array]":
    """log(1 + distance), and the unit vector in the frame of who faces the angle; 0 where there is no distance.

    The logarithm tells near distances apart best, where they decide most; and it needs no
    statistics, so that a distance that training did not see stays within reach.
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


def _mean_and_std(values: np.ndarray) -> tuple[float, float]:
    """Of float32 [N], as float32 values; the standard deviation is 1 where all are the same."""
    exact = values.astype(np.float64)  # in which sums of equal float32 do not round
    mean, std = np.float32(exact.mean()), np.float32(exact.std())
    return float(mean), float(std) if std > 0 else 1.0
