"""Calls into an engine that is a process of its own and may be killed."""

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import Any

import psutil

from BC_training.common.errors import GameDied

_LOOK = 0.5  # seconds of a call between two looks whether the engine lives
_GRACE = 2.0  # seconds that a call still has once the engine is dead


class EngineCalls:
    """Calls functions in a thread of its own, one after the other.

    A call to an engine that is killed while it holds a shared lock waits for ever and cannot be interrupted; its thread
    is then given up.

    Attributes:
        engine: the process; None until it has started.
    """

    def __init__(self) -> None:
        self.engine: psutil.Process | None = None
        self._given_up = False
        self._number = 0  # the last call's; an interrupted call leaves its answer behind
        self._todo: SimpleQueue[tuple[int, Callable[[], Any]] | None] = SimpleQueue()
        self._done: SimpleQueue[tuple[int, Any, BaseException | None]] = SimpleQueue()
        threading.Thread(target=_work, args=(self._todo, self._done), name="engine", daemon=True).start()

    def __call__(self, function: Callable[[], Any]) -> Any:
        """What ``function`` returns; raises GameDied if the engine is dead and the call does not return."""
        if self._given_up:
            raise GameDied("the engine is dead")
        self._number = number = self._number + 1
        self._todo.put((number, function))
        answered, result, error, wait = 0, None, None, _LOOK
        while answered != number:
            try:
                answered, result, error = self._done.get(timeout=wait)
            except Empty:
                if wait == _GRACE:
                    self._given_up = True
                    raise GameDied("the engine was killed") from None
                wait = _LOOK if self._is_alive() else _GRACE
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """Ends the thread, if it was not given up; may be called again."""
        self._given_up = True
        self._todo.put(None)

    def _is_alive(self) -> bool:
        try:
            return self.engine is None or self.engine.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def _work(todo: SimpleQueue, done: SimpleQueue) -> None:
    while (call := todo.get()) is not None:
        number, function = call
        try:
            answer = number, function(), None
        except BaseException as error:
            answer = number, None, error
        done.put(answer)
        del call, function, answer  # a game must not be kept until the next call
