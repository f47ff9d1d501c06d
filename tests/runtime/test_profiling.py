import gzip
import json
from io import StringIO
from pathlib import Path

import jax
import pytest
from rich.console import Console
from trainings import final_state, run

from BC_training.runtime.profiling import StepProfiler


@pytest.fixture
def traces(monkeypatch) -> list[str | Path]:
    """The calls of JAX's profiler."""
    calls: list[str | Path] = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder, create_perfetto_trace: calls.append(folder))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: calls.append("stop"))
    return calls


@pytest.mark.parametrize(
    ("size", "first", "last", "traced"),
    [
        (1, 3, 5, (2, 5)),
        (1, 1, 1, (0, 1)),
        (4, 3, 5, (0, 8)),
        (4, 5, 8, (4, 8)),
        (4, 4, 4, (0, 4)),
        (1, 11, 99, (10, 12)),
    ],
)
def test_the_dispatches_that_hold_the_steps_are_traced(traces, size, first, last, traced):
    profiler, begun, ended = StepProfiler((first, last), Path("x"), Console(quiet=True)), None, None
    for start in range(0, 12, size):
        before = len(traces)
        profiler.before(range(start, start + size), ())
        if len(traces) > before:
            assert traces[before:] in ([Path("x")], ["stop"])
            begun, ended = (start, None) if begun is None else (begun, start)
    profiler.stop(())
    assert (begun, ended or 12) == traced
    assert traces == [Path("x"), "stop"]


def test_nothing_is_traced_by_default(traces):
    profiler = StepProfiler(None, Path("x"), Console(quiet=True))
    profiler.before(range(8), ())
    profiler.stop(())
    assert traces == []


def test_a_training_goes_on_where_its_trace_cannot_be_written(monkeypatch):
    def stop_trace():
        raise OSError("no space left on the disk")

    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder, create_perfetto_trace: None)
    monkeypatch.setattr(jax.profiler, "stop_trace", stop_trace)
    screen = StringIO()
    profiler = StepProfiler((1, 2), Path("x"), Console(file=screen, width=200))
    profiler.before(range(2), ())
    profiler.stop(())
    profiler.stop(())
    assert screen.getvalue() == "no profile of steps (1, 2): no space left on the disk\n"


@pytest.mark.slow
@pytest.mark.parametrize("steps", [(3, 5), (9, 50)])
def test_a_training_leaves_a_trace_and_the_same_parameters(tmp_path, make_dataset, monkeypatch, steps):
    """Also where it ends before the last step to trace: it takes 10 steps."""
    make_dataset(tmp_path / "x.zarr", [40] * 4, state=0)
    run(tmp_path / "plain", tmp_path / "x.zarr")
    inside, begin, end = [], jax.profiler.start_trace, jax.profiler.stop_trace
    before, running = StepProfiler.before, [False]
    monkeypatch.setattr(jax.profiler, "start_trace", lambda *a, **o: (begin(*a, **o), running.append(True)))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: (end(), running.append(False)))
    monkeypatch.setattr(
        StepProfiler,
        "before",
        lambda self, steps, state: (before(self, steps, state), inside.extend(s + 1 for s in steps if running[-1])),
    )
    printed = run(tmp_path / "traced", tmp_path / "x.zarr", f"training.profile_steps={list(steps)}")
    assert inside == list(range(steps[0], min(steps[1], 10) + 1))
    assert final_state(tmp_path / "traced") == final_state(tmp_path / "plain")
    (trace,) = (tmp_path / "traced/l/pure_cnn/profile").rglob("perfetto_trace.json.gz")
    with gzip.open(trace) as file:
        events = json.load(file)["traceEvents"]
    assert any("train_steps" in e.get("name", "") + str(e.get("args", "")) for e in events)
    assert "perfetto_trace.json.gz" in printed
