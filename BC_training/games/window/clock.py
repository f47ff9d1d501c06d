"""The rate at which a window is looked at."""

import time


class Ticks:
    """Moments at equal distances, k / fps seconds after the start, whatever happened in between.

    Args:
        fps: how many a second.

    Attributes:
        missed: how many were over before anyone waited for them, since the start.
    """

    def __init__(self, fps: float):
        self._period = 1 / fps
        self.restart()

    def restart(self) -> None:
        """The first is now."""
        self._start, self._next, self.missed = time.perf_counter(), 1, 0

    def wait(self) -> int:
        """Sleeps until the next one that is not over yet; returns how many were left out before it."""
        passed = time.perf_counter() - self._start
        missed = max(int(passed / self._period) + 1 - self._next, 0)
        self.missed += missed
        self._next += missed + 1
        time.sleep(max(self._start + (self._next - 1) * self._period - time.perf_counter(), 0))
        return missed
