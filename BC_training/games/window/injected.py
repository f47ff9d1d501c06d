"""Tells a desktop's own input from that of other programs."""

import time
from collections import deque
from collections.abc import Hashable

_SECONDS = 2.0  # an event that has not come by then never will


class Injected:
    """What was injected and has not come back as an event yet. The system keeps its order."""

    def __init__(self) -> None:
        self._sent: deque[tuple[float, Hashable]] = deque()

    def add(self, what: Hashable) -> None:
        """``what`` is being injected."""
        self._sent.append((time.perf_counter(), what))

    def take(self, what: Hashable) -> bool:
        """Whether an event is one of these; it and those before it are then forgotten."""
        while self._sent and time.perf_counter() - self._sent[0][0] > _SECONDS:
            self._sent.popleft()
        for i, (_, sent) in enumerate(self._sent):
            if sent == what:
                for _ in range(i + 1):
                    self._sent.popleft()
                return True
        return False
