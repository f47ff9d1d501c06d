"""The rate of a game that a person plays: frame k ends k periods after the start, whatever happened before."""

import time


class FrameClock:
    """Absolute deadlines of a monotonic clock, so that delays do not add up.

    A frame that ends late makes the next one shorter. After a delay of more than a whole frame the deadlines move, as
    the game would otherwise run too fast for a person. Late frames are counted, and none is left out.

    Args:
        fps: frames per second.

    Attributes:
        lateness: how long after its deadline each frame ended, in seconds.
        late: how many of them ended more than a quarter of a frame late.
    """

    def __init__(self, fps: float):
        self._period = 1 / fps
        self.lateness: list[float] = []
        self.late = 0
        self._played = 0.0  # seconds, without pauses
        self.restart()

    def restart(self) -> None:
        """A frame begins now: at the start, and after a pause."""
        self._begun = time.monotonic()
        self._deadline = self._begun + self._period

    @property
    def left(self) -> float:
        """Seconds until the frame ends; negative if that is over."""
        return self._deadline - time.monotonic()

    def tick(self) -> None:
        """Ends the frame."""
        now = time.monotonic()
        late = now - self._deadline
        self.lateness.append(late)
        self.late += late > self._period / 4
        self._played, self._begun = self._played + now - self._begun, now
        self._deadline += self._period
        if late > self._period:
            self._deadline = now + self._period

    @property
    def real_fps(self) -> float:
        """Frames per second as they were, without pauses; 0 before the first frame."""
        return len(self.lateness) / self._played if self._played else 0.0
