"""What of an environment's observations are frames, and what is state."""

import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from gymnasium import spaces

_SMALLEST = 16  # pixels: smaller arrays of bytes are maps or the like
WORDS = 32  # of a text, those that the state holds


def image_reader(space: spaces.Space) -> Callable[[Any], np.ndarray] | None:
    """Makes a picture, uint8 [H, W, 3] RGB, of an observation; None where observations are no pictures.

    Pictures are RGB or grey, and may have sides of 1, as a stack of one frame has.
    """
    if not isinstance(space, spaces.Box) or space.dtype != np.uint8:
        return None
    shape = tuple(side for side in space.shape if side != 1)
    if len(shape) == 2 and min(shape) >= _SMALLEST:
        return lambda observation: np.repeat(observation.reshape(*shape, 1), 3, axis=2)
    if len(shape) == 3 and shape[2] == 3 and min(shape[:2]) >= _SMALLEST:
        return lambda observation: observation.reshape(shape)
    if len(shape) == 3 and shape[0] == 3 and min(shape[1:]) >= _SMALLEST:
        return lambda observation: np.moveaxis(observation.reshape(shape), 0, -1)
    return None


class StateReader:
    """Makes the state of observations that are no pictures: all their numbers, vectors and texts.

    Of a text, the state holds the numbers of its first ``WORDS`` words, to be used as categories; equal words have
    equal numbers, and 0 is no word.

    Args:
        documented: names of a vector's values, used where there are as many.

    Attributes:
        names: of the S values; dotted where observations have parts.
    """

    def __init__(self, space: spaces.Space, documented: tuple[str, ...] = ()):
        self._parts = list(_parts(space, "", ()))
        sizes = [(name, WORDS if is_text else count) for name, _, count, is_text in self._parts]
        self.names = tuple(label for name, count in sizes for label in _labels(name, count))
        if len(documented) == len(self.names):
            self.names = documented

    def __call__(self, observation: Any) -> np.ndarray:
        """float32 [S]."""
        values = [np.zeros(0, np.float32)]
        for _, path, _, is_text in self._parts:
            value = observation
            for index in path:
                value = value[index]
            values.append(_word_numbers(value) if is_text else np.ravel(value).astype(np.float32))
        return np.concatenate(values)


def _parts(space: spaces.Space, name: str, path: tuple[Any, ...]) -> Iterator[tuple[str, tuple[Any, ...], int, bool]]:
    """(name, where it is in an observation, how many numbers it has, whether it is a text) of each part."""
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        inner = space.spaces.items() if isinstance(space, spaces.Dict) else enumerate(space.spaces)
        for key, part in inner:
            outer = f"obs_{key}" if isinstance(space, spaces.Tuple) else str(key)
            yield from _parts(part, f"{name}.{key}" if name else outer, (*path, key))
    elif getattr(space.dtype, "kind", "") == "U":
        yield name, path, 0, True
    elif _is_numbers(space):
        yield name, path, int(np.prod(space.shape or ())), False


def _is_numbers(space: spaces.Space) -> bool:
    if isinstance(space, spaces.Box):
        return len(space.shape) < 2 or (len(space.shape) == 2 and space.dtype.kind == "f")
    return isinstance(space, (spaces.Discrete, spaces.MultiBinary, spaces.MultiDiscrete))


def _labels(name: str, count: int) -> list[str]:
    if count == 1:
        return [name or "obs"]
    return [f"{name}.{i}" if name else f"obs_{i}" for i in range(count)]


def _word_numbers(text: str) -> np.ndarray:
    """float32 [WORDS]: checksums of the words below 2^24, up to which float32 holds every whole number."""
    numbers = [zlib.crc32(word.encode()) % (2**24 - 1) + 1 for word in text.split()[:WORDS]]
    return np.array(numbers + [0] * (WORDS - len(numbers)), np.float32)
