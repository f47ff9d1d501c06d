"""Runs many tasks in parallel processes, with a progress bar."""

import _thread
import atexit
import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from BC_training.common.errors import UserError

SPAWN = multiprocessing.get_context("spawn")  # a fork would copy locks held by JAX's threads


class Worker(Protocol):
    """An object that stays open in a process from one task to the next."""

    def run(self, task: Any) -> Any:
        """Does one task and returns its result; both are pickled."""
        ...

    def close(self) -> None: ...


def run_tasks(
    worker: Callable[..., Worker],
    args: tuple[Any, ...],
    tasks: Sequence[Any],
    processes: int,
    console: Console,
    *,
    title: str,
    unit: tuple[str, Callable[[Any], int]],
) -> list[Any]:
    """Runs ``worker(*args).run(task)`` for every task; each process has its own worker.

    Args:
        worker: a class at module level, since it is pickled.
        processes: the most to use; a single one is this process.
        unit: the progress bar's rate, as (name, function that counts a result).

    Returns:
        The results in the order of ``tasks``.

    Raises:
        UserError: a worker raised it, or a process died.
    """
    if not tasks:  # an export that was killed after its last episode
        return []
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}", markup=False),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    results: dict[int, Any] = {}
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(title, total=len(tasks), rate="")

        count = 0

        def gathered(index: int, result: Any) -> None:
            nonlocal count
            results[index] = result
            count += unit[1](result)
            elapsed = progress.tasks[bar].elapsed or 0.0
            progress.update(bar, advance=1, rate=f"{count / max(elapsed, 1e-9):,.0f} {unit[0]}/s")

        if min(processes, len(tasks)) == 1:
            with closing_on_sigterm(), contextlib.closing(worker(*args)) as local:
                for index, task in enumerate(tasks):
                    gathered(index, local.run(task))
        else:
            processes = min(processes, len(tasks))
            with ProcessPoolExecutor(processes, SPAWN, prepare_process, (threads_of(processes),)) as pool:
                _gather(pool, worker, args, tasks, gathered)
    return [results[index] for index in range(len(tasks))]


def threads_of(processes: int) -> int:
    """How many of JAX's threads each of so many processes is to have."""
    return max((os.cpu_count() or 1) // processes, 1)


@contextlib.contextmanager
def closing_on_sigterm() -> Iterator[None]:
    """Makes a SIGTERM that nothing else handles raise SystemExit, so that running games are closed."""
    if (
        threading.current_thread() is not threading.main_thread()  # no other may set handlers
        or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    ):
        yield
        return
    signal.signal(signal.SIGTERM, _exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _exit(number: int, frame: object) -> None:
    del frame
    signal.signal(number, signal.SIG_IGN)  # a second signal must not interrupt the closing
    raise SystemExit(128 + number)


def _gather(
    pool: Executor,
    worker: Callable[..., Worker],
    args: tuple[Any, ...],
    tasks: Sequence[Any],
    gathered: Callable[[int, Any], None],
) -> None:
    try:
        futures = {pool.submit(run_in_worker, worker, args, task): index for index, task in enumerate(tasks)}
        for future in as_completed(futures):
            gathered(futures[future], future.result())
    except BrokenProcessPool:
        raise UserError(
            "a worker process died; the episodes finished before are kept: run the same command again"
        ) from None
    except Exception:
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    except BaseException:  # interrupted: does not wait for the tasks that are running
        for process in multiprocessing.active_children():
            process.terminate()
        pool.shutdown(wait=False, cancel_futures=True)
        raise


_worker: Worker | None = None  # this process's
_is_running = False  # whether it is being made or runs a task
_is_ending = False


def prepare_process(threads: int) -> None:
    """Makes this process close its worker and end when the process that started it ends, and no sooner.

    Args:
        threads: those of JAX's CPU backend, which would use all cores in each process.
    """
    os.environ.setdefault("PJRT_NPROC", str(threads))
    # On a GPU, JAX would reserve most of the memory in each process.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to all processes, and the parent ends us
    signal.signal(signal.SIGTERM, _end_process)
    threading.Thread(target=_follow_parent, daemon=True).start()


def _follow_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    if sys.platform == "win32":  # where os.kill would end this process without its handler
        _thread.interrupt_main(signal.SIGTERM)
    else:  # this also wakes the main thread from a system call
        os.kill(os.getpid(), signal.SIGTERM)


def _end_process(number: int, frame: object) -> None:
    del frame
    global _is_ending
    if _is_ending:  # a second signal must not interrupt the closing
        return
    _is_ending = True
    if _is_running:
        raise SystemExit(128 + number)  # so that all that is open gets closed
    _close_and_exit()


def _close_and_exit() -> None:
    try:
        if _worker is not None:
            _worker.close()  # a game's engine would outlive us
    finally:
        os._exit(128 + signal.SIGTERM)


def run_in_worker(worker: Callable[..., Worker], args: tuple[Any, ...], task: Any) -> Any:
    global _worker, _is_running
    try:
        try:
            _is_running = True
            if _worker is None:
                _worker = worker(*args)
                atexit.register(_worker.close)
            return _worker.run(task)
        finally:
            _is_running = False
    finally:
        if _is_ending:  # not "except SystemExit", which a callback may have swallowed
            _close_and_exit()
