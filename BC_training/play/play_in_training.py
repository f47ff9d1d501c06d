"""A checkpoint that plays while its training runs."""

from pathlib import Path

from rich.console import Console
from rich.progress import Progress as Bars

from BC_training.play.rollout import Benchmark
from BC_training.runtime.interruption import Interruption
from BC_training.runtime.sharding import from_main
from BC_training.training.saver import Saver


def play_saved(
    saver: Saver, benchmark: Benchmark, interruption: Interruption, bars: Bars, console: Console, epoch: int
) -> dict[str, float] | None:
    """Scores the checkpoint of ``epoch``; None where it could not be saved.

    A signal ends the play at once: all is saved, and the training plays again when it goes on.
    """
    bars.stop()
    with interruption.immediate():
        scores = from_main(lambda: _score(saver.settle(), benchmark, console, epoch))
    bars.start()
    return scores


def _score(folder: Path | None, benchmark: Benchmark, console: Console, epoch: int) -> dict[str, float] | None:
    if folder is None:
        console.print(f"epoch {epoch} is not played: it could not be saved", style="yellow")
        return None
    return benchmark.score(folder)
