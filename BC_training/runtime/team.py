"""Worker processes that all do one task at a time, in step."""

import contextlib
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, Self

from BC_training.common.errors import UserError
from BC_training.runtime.workers import SPAWN, Worker, prepare_process, run_in_worker, threads_of

_PATIENCE = 10.0  # seconds in which a worker may finish its task and close


class Team:
    """Workers with a process each, which do their tasks at the same time; all wait for the slowest. A context manager.

    Args:
        worker: a class at module level, since it is pickled.
        args: of each worker. A single one is in this process.
    """

    def __init__(self, worker: Callable[..., Worker], args: Sequence[tuple[Any, ...]]):
        self._local = worker(*args[0]) if len(args) == 1 else None
        self._members: list[tuple[Any, Any]] = []  # processes and the connections to them
        if self._local is not None:
            return
        try:
            for each in args:
                mine, theirs = SPAWN.Pipe()
                process = SPAWN.Process(target=_serve, args=(theirs, threads_of(len(args)), worker, each), daemon=True)
                self._members.append((process, mine))
                process.start()
                theirs.close()  # so that a process that dies ends the connection
        except BaseException:
            self.close()
            raise

    def run(self, tasks: Sequence[Any]) -> list[Any]:
        """What the workers return, one task for each; the first of their errors is raised.

        Raises:
            UserError: a worker raised it, or a process died.
        """
        if self._local is not None:
            return [self._local.run(task) for task in tasks]
        try:
            for (_, connection), task in zip(self._members, tasks, strict=True):
                connection.send(task)
            answers = [connection.recv() for _, connection in self._members]
        except (EOFError, OSError):
            raise UserError(
                "a worker process died: see to the machine's memory, then run the same command again"
            ) from None
        for _, error in answers:
            if error is not None:
                raise error
        return [result for result, _ in answers]

    def close(self) -> None:
        """Ends all processes, once what they opened is closed."""
        if self._local is not None:
            self._local.close()
        for _, connection in self._members:
            connection.close()  # which ends the process, after a task that it is at
        for process, _ in self._members:
            if process.pid is not None:
                process.join(_PATIENCE)
                process.terminate()
                process.join()
        self._members = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def _serve(connection: Connection, threads: int, worker: Callable[..., Worker], args: tuple[Any, ...]) -> None:
    prepare_process(threads)
    with contextlib.suppress(EOFError, OSError):  # the other side has closed
        while True:
            task = connection.recv()
            try:
                answer = run_in_worker(worker, args, task), None
            except Exception as error:
                error.add_note(traceback.format_exc())
                answer = None, error
            connection.send(answer)
