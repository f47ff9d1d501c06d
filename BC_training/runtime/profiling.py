"""A JAX profiler trace of some training steps."""

from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from BC_training.common.errors import first_line


class StepProfiler:
    """Traces the dispatches with the steps from first to last, counted from 1, both included.

    Args:
        steps: (first, last); None for no trace.
        folder: for the trace.
    """

    def __init__(self, steps: tuple[int, int] | None, folder: Path, console: Console):
        self._steps, self._folder, self._console = steps, folder, console
        self._running = False

    def before(self, steps: range, state: Any) -> None:
        """Must be called before each dispatch, with its steps, counted from 0, and the state it takes."""
        if self._steps is None:
            return
        first, last = self._steps
        if self._running and steps.start >= last:
            self.stop(state)
        elif not self._running and steps.start < last and steps.stop >= first:
            jax.profiler.start_trace(self._folder, create_perfetto_trace=True)
            self._running = True

    def stop(self, state: Any) -> None:
        """Ends a trace that is still running, once ``state`` is computed."""
        if self._running:
            self._running = False
            jax.block_until_ready(state)
            try:
                jax.profiler.stop_trace()
            except (OSError, RuntimeError, ValueError) as error:  # for example a full disk
                message = f"no profile of steps {self._steps}: {first_line(error)}"
            else:
                message = (
                    f"profile of steps {self._steps}: {self._folder} (for xprof; its perfetto_trace.json.gz "
                    "opens in Perfetto)"
                )
            self._console.print(message, soft_wrap=True, highlight=False, markup=False)
