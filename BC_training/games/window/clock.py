"""The rate at which a window is looked at."""

import time


class Ticks:
    """Moments k / fps seconds after the start, for k = 1, 2, ..., whatever happens in between.

    Args:
        fps: how many a second.

    Attributes:
        late: how many seconds after its moment the last ``wait`` returned.
        missed: how many moments it left out, as the next one after them was over, too.
    """

    def __init__(self, fps: float):
        self._period = 1 / fps
        self.restart()

    def restart(self) -> None:
        """Starts now."""
        self._start, self._count, self.late, self.missed = time.perf_counter(), 0, 0.0, 0

    def wait(self) -> None:
        """Sleeps until the next moment; where that is over returns at once."""
        over = int((time.perf_counter() - self._start) / self._period)
        self.missed = max(over - self._count - 1, 0)
        self._count += self.missed + 1
        moment = self._start + self._count * self._period
        time.sleep(max(moment - time.perf_counter(), 0))
        self.late = time.perf_counter() - moment
