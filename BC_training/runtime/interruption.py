"""SIGTERM and SIGINT: a training saves where it is and ends within ten seconds."""

import contextlib
import os
import signal
import socket
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from enum import IntEnum
from time import monotonic
from types import FrameType
from typing import Self

import jax
import numpy as np

from BC_training.runtime.sharding import all_devices, replicated, split_along, to_devices

EXIT_CODE = 75  # EX_TEMPFAIL of sysexits.h: the same command, run again, goes on
# Windows sends SIGBREAK for Ctrl-Break, the one signal that a program there can send to another.
_SIGNALS = (signal.SIGTERM, signal.SIGINT, *((signal.SIGBREAK,) if sys.platform == "win32" else ()))
_DEADLINE = 9.0  # seconds from the first signal to the end, saved or not
_ECHO = 0.5  # seconds in which the same signal is still the first: one to the group, which a launcher passes on


class Interrupted(Exception):
    """The training was asked to end, and has saved what there was to save. The message says where.

    Attributes:
        agreed: whether the other processes of the run end, too, at the same place.
    """

    def __init__(self, message: str = "", agreed: bool = True):
        super().__init__(message)
        self.agreed = agreed


class Interruption:
    """Turns the first SIGTERM or SIGINT into a request, the second into an end at once.

    While ``deferred``, a request only sets ``requested``, for the training to act on where its
    state is whole; otherwise it raises KeyboardInterrupt. A training that takes longer than nine
    seconds to act, in the middle of a compilation for example, is ended: checkpoints are committed
    whole or not at all, so the last one stays good.

    As a context manager it turns the KeyboardInterrupt of a request into ``Interrupted``.

    Args:
        describe_saved: returns what the messages say of the newest checkpoint.

    Attributes:
        requested: the signal's name, None before one came.
    """

    def __init__(self, describe_saved: Callable[[], str] = lambda: "what was finished is kept"):
        self.requested: str | None = None
        self._describe_saved = describe_saved
        self._deferred = False

    @contextlib.contextmanager
    def deferred(self) -> Iterator[None]:
        self._deferred = True
        try:
            yield
        finally:
            self._deferred = False

    @contextlib.contextmanager
    def immediate(self) -> Iterator[None]:
        """Within ``deferred``, where all is saved: a request raises KeyboardInterrupt, one that came before, too."""
        self._deferred = False
        try:
            if self.requested is not None:
                raise KeyboardInterrupt
            yield
        finally:
            self._deferred = True

    def __enter__(self) -> Self:
        self._installed = threading.current_thread() is threading.main_thread()  # no other may set handlers
        if not self._installed:
            return self
        self._wake, self._wakeup = socket.socketpair()  # Windows takes no pipe
        self._wakeup.setblocking(False)
        self._before = [signal.signal(number, self._handle) for number in _SIGNALS]
        # The interpreter runs handlers between two bytecodes of the main thread, which may be in
        # the middle of a long call; the socket is written to at once.
        self._old_wakeup = signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=self._watch, name="interruption", daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        if self._installed:
            signal.set_wakeup_fd(self._old_wakeup)
            for number, handler in zip(_SIGNALS, self._before, strict=True):
                signal.signal(number, handler)
            self._wakeup.close()  # ends the thread
        if kind is KeyboardInterrupt:
            raise Interrupted(
                f"stopped by {self.requested or 'SIGINT'}; {self._describe_saved()}", agreed=False
            ) from None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        del frame
        first = self.requested is None
        self.requested = signal.Signals(number).name
        if not self._deferred and first:
            raise KeyboardInterrupt

    def _watch(self) -> None:
        first = self._next_signal(None)
        if not first:
            return
        start = monotonic()
        _say("stopping: saving first; once more ends it at once")
        number = first
        while number == first and monotonic() - start < _ECHO:
            number = self._next_signal(start + _DEADLINE - monotonic())
        if number is None:
            return
        if number:
            _end(128 + number, f"ended without saving; {self._describe_saved()}")
        _end(EXIT_CODE, f"ended: not done after {_DEADLINE:.0f} s; {self._describe_saved()}")

    def _next_signal(self, timeout: float | None) -> int | None:
        """The next one's number, 0 after ``timeout`` seconds, None when there will be no more."""
        while True:
            self._wake.settimeout(timeout if timeout is None else max(timeout, 0.001))
            try:
                numbers = self._wake.recv(1)
            except TimeoutError:
                return 0
            if not numbers:
                self._wake.close()
                return None
            if numbers[0] in _SIGNALS:
                return numbers[0]


def _say(message: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(message, file=sys.stderr, flush=True)


def _end(code: int, message: str) -> None:
    _say(message)
    os._exit(code)


class Decision(IntEnum):
    """What a training does next; of several processes' decisions the largest counts."""

    CONTINUE = 0
    SAVE = 1
    STOP = 2  # save and end


class Decider:
    """Decides before each dispatch whether to continue, to save, or to save and end.

    Several processes must decide the same at the same dispatch, without waiting for each other: the
    largest of their decisions is computed behind the training step, and counts some dispatches later.

    Attributes:
        stopping: whether the last decision was to save and end.

    Args:
        lag: dispatches from a process's own decision to its effect, with several processes.
    """

    def __init__(self, interruption: Interruption, save_every_minutes: float, lag: int):
        self._interruption, self._seconds, self._lag = interruption, save_every_minutes * 60, lag
        self.stopping = False
        self._last_save = monotonic()
        self._pending: deque[jax.Array] = deque()
        if jax.process_count() > 1:
            mesh = all_devices()
            self._split = split_along(mesh, 0)
            self._largest = jax.jit(lambda decisions: decisions.max(), out_shardings=replicated(mesh))

    def decide(self) -> Decision:
        decision = Decision.SAVE if monotonic() - self._last_save > self._seconds else Decision.CONTINUE
        if self._interruption.requested is not None:
            decision = Decision.STOP
        if jax.process_count() > 1:
            mine = np.full(jax.local_device_count(), decision, np.int32)
            self._pending.append(self._largest(to_devices(mine, self._split)))
            ready = len(self._pending) > self._lag
            decision = Decision(int(self._pending.popleft())) if ready else Decision.CONTINUE
        self.stopping = decision == Decision.STOP
        return decision

    def note_save(self) -> None:
        """Starts the time to the next save; every process calls it after each save."""
        self._last_save = monotonic()
        self._pending.clear()

    def end_if_stopped(self, place: str) -> None:
        """Raises ``Interrupted``, with the ``place`` that was saved, if the last decision or a signal asks for it."""
        requested = self._interruption.requested
        if self.stopping or requested is not None:
            raise Interrupted(f"stopped by {requested or 'another process'}; saved after {place}")
