"""Tells a desktop's own input from that of other programs."""

import threading
import time
from collections import deque
from collections.abc import Hashable

_SECONDS = 2.0  # an event that has not come by then never will


class Injected:
    """What was injected and has not come back as an event yet. The system keeps its order."""

    def __init__(self) -> None:
        self._sent: deque[tuple[float, Hashable]] = deque()
        self._lock = threading.Lock()

    def add(self, what: Hashable) -> None:
        """``what`` is being injected."""
        with self._lock:
            while self._sent and self._sent[0][0] < time.perf_counter() - _SECONDS:
                self._sent.popleft()
            self._sent.append((time.perf_counter(), what))

    def take(self, what: Hashable) -> bool:
        """Whether an event is one of these; it and those before it are then forgotten."""
        with self._lock:
            oldest = time.perf_counter() - _SECONDS
            place = next((i for i, (sent, other) in enumerate(self._sent) if other == what and sent > oldest), None)
            for _ in range(0 if place is None else place + 1):
                self._sent.popleft()
            return place is not None
