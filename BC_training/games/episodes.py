"""Plays many episodes, in parallel processes, with a progress bar."""

import atexit
import multiprocessing
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from BC_training.common.errors import UserError
from BC_training.games import make_game
from BC_training.games.players import make_player


class Session:
    """A game and a player that stay open from one episode to the next."""

    def __init__(self, game: str, player: str, frame_size: tuple[int, int], skill: int, render_mode: str | None = None):
        self.env = make_game(game, frame_size=frame_size, skill=skill, render_mode=render_mode)
        self.game: Any = self.env.unwrapped
        try:
            self.player = make_player(player, game, self.env)
        except BaseException:
            self.env.close()
            raise

    def run(self, task: Any) -> Any:
        """Plays one episode and returns what the caller gathers; picklable both ways."""
        raise NotImplementedError

    def close(self) -> None:
        self.env.close()


def run_episodes(
    session: Callable[..., Session],
    args: tuple[Any, ...],
    tasks: Sequence[Any],
    workers: int,
    console: Console,
    *,
    title: str,
    unit: tuple[str, Callable[[Any], int]],
) -> list[Any]:
    """Runs ``session(*args).run(task)`` for every task, each worker with a session of its own.

    Args:
        session: a Session subclass at module level (it is pickled).
        workers: processes at most; one runs in this process.
        unit: what the progress bar counts a second, as (name, count of a result).

    Returns:
        The results in the order of ``tasks``.

    Raises:
        UserError: raised in a worker, or a worker that died.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    results: dict[int, Any] = {}
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task(title, total=len(tasks), rate="")

        def gathered(index: int, result: Any) -> None:
            results[index] = result
            count = sum(unit[1](r) for r in results.values())
            elapsed = progress.tasks[bar].elapsed or 0.0
            progress.update(bar, advance=1, rate=f"{count / max(elapsed, 1e-9):,.0f} {unit[0]}/s")

        if min(workers, len(tasks)) == 1:
            local = session(*args)
            try:
                for index, task in enumerate(tasks):
                    gathered(index, local.run(task))
            finally:
                local.close()
        else:
            # spawn: a fork would copy locks held by JAX's threads.
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(min(workers, len(tasks)), mp_context=context) as pool:
                _gather(pool, session, args, tasks, gathered)
    return [results[index] for index in range(len(tasks))]


def _gather(
    pool: Executor,
    session: Callable[..., Session],
    args: tuple[Any, ...],
    tasks: Sequence[Any],
    gathered: Callable[[int, Any], None],
) -> None:
    futures = {pool.submit(_run_in_worker, session, args, task): index for index, task in enumerate(tasks)}
    try:
        for future in as_completed(futures):
            gathered(futures[future], future.result())
    except BrokenProcessPool:
        raise UserError(
            "a worker process died; the episodes finished before are kept: run the same command again"
        ) from None
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        raise


_session: Session | None = None  # this worker's


def _run_in_worker(session: Callable[..., Session], args: tuple[Any, ...], task: Any) -> Any:
    global _session
    if _session is None:
        # On a GPU, where JAX would reserve most of the memory for each of us.
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        _session = session(*args)
        atexit.register(_session.close)
    return _session.run(task)
