"""A training gets SIGTERM or SIGINT at any moment, and then goes on as if it had not been stopped."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import pytest
from trainings import final_state, free_port, rows, run, settings, start, verify_all

from BC_training import __main__ as command_line
from BC_training import finish
from BC_training import train as training
from BC_training.__main__ import main
from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.data import cache, loader, samples
from BC_training.runtime import interruption
from BC_training.runtime.interruption import EXIT_CODE, Decider, Decision, Interrupted, Interruption
from BC_training.training import checkpoint_writer


def test_a_signal_is_a_request_while_deferred_and_ends_the_work_otherwise():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
    with Interruption() as interrupted, interrupted.deferred():
        os.kill(os.getpid(), signal.SIGTERM)
        assert interrupted.requested == "SIGTERM"
    with pytest.raises(Interrupted, match="stopped by SIGINT; step 7 is kept"), Interruption(lambda: "step 7 is kept"):
        signal.raise_signal(signal.SIGINT)
    assert [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)] == before
    assert signal.set_wakeup_fd(-1) == -1


def test_where_all_is_saved_a_request_ends_the_work_at_once():
    with Interruption() as interrupted, interrupted.deferred():
        with pytest.raises(KeyboardInterrupt), interrupted.immediate():
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt), interrupted.immediate():  # the signal came before
            pass


def test_the_watching_thread_ends_with_the_interruption():
    before = threading.enumerate()
    with Interruption():
        (thread,) = [t for t in threading.enumerate() if t not in before]
    thread.join(60)
    assert not thread.is_alive()


def test_a_training_saves_when_the_time_has_come_and_stops_at_a_signal(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(interruption, "monotonic", lambda: now[0])
    interrupted: Any = SimpleNamespace(requested=None)
    decider = Decider(interrupted, save_every_minutes=2, lag=3)
    assert [decider.decide(), decider.decide()] == [Decision.CONTINUE] * 2
    now[0] = 120.5
    assert decider.decide() == Decision.SAVE
    assert decider.decide() == Decision.SAVE  # until it is done
    assert not decider.stopping
    decider.end_if_stopped("step 1")
    decider.note_save()
    assert decider.decide() == Decision.CONTINUE
    now[0] = 240.0
    assert decider.decide() == Decision.CONTINUE  # two minutes from the last save, not from the start
    interrupted.requested = "SIGTERM"
    assert decider.decide() == Decision.STOP
    assert decider.stopping
    with pytest.raises(Interrupted, match="stopped by SIGTERM; saved after step 1"):
        decider.end_if_stopped("step 1")


STUCK = """
import signal, sys, time
from BC_training.runtime import interruption
interruption._DEADLINE, interruption._ECHO = map(float, sys.argv[1:])
with interruption.Interruption(lambda: "step 7 is kept") as stop, stop.deferred():
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM, signal.SIGINT])
    print("ready", flush=True)
    time.sleep(600)
"""


TERM, INT = signal.SIGTERM, signal.SIGINT


@pytest.mark.parametrize(
    ("deadline", "echo", "wait", "second", "code", "last_line"),
    [
        (0.5, 0.5, 0, None, EXIT_CODE, "ended: not done after 0 s; step 7 is kept"),
        # A launcher passes the first one on.
        pytest.param(3, 2, 0, TERM, EXIT_CODE, "ended: not done after 3 s; step 7 is kept", marks=pytest.mark.slow),
        (500, 0.1, 0.2, TERM, 128 + TERM, "ended without saving; step 7 is kept"),
        (500, 0.5, 0, INT, 128 + INT, "ended without saving; step 7 is kept"),
    ],
)
def test_a_training_that_cannot_save_ends_at_its_deadline_or_at_a_second_signal(
    deadline, echo, wait, second, code, last_line
):
    """Its main thread never gets to its handlers, as in the middle of a compilation."""
    process = start(["-c", STUCK, str(deadline), str(echo)])
    assert process.stdout is not None
    assert process.stderr is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(TERM)
    assert process.stderr.readline() == "stopping: saving first; once more ends it at once\n"
    if second is not None:
        time.sleep(wait)
        process.send_signal(second)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (code, f"{last_line}\n")


SETTINGS = ["training.num_epochs=2", "evaluation.batch_size=8", "training.ema_decay=0.9"]


@pytest.fixture(scope="module")
def data(tmp_path_factory, make_dataset) -> Path:
    """5 steps of 16 an epoch, and 10 batches of 8 of validation."""
    path = tmp_path_factory.mktemp("data") / "x.zarr"
    make_dataset(path, [40] * 4, state=0)
    return path


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory, data) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    run(folder, data, *SETTINGS)
    return folder


def assert_same(folder: Path, undisturbed: Path) -> None:
    """Parameters, averages and the optimizer bit for bit, every row once, and the same best."""
    assert final_state(folder) == final_state(undisturbed)
    assert rows(folder) == rows(undisturbed)
    verify_all(folder)
    for place in ("c/pure_cnn/best/*", "l/pure_cnn/evaluation.json"):
        found, expected = (sorted(run_folder.glob(place)) for run_folder in (folder, undisturbed))
        assert [path.name for path in found] == [path.name for path in expected]
    assert found[0].read_text() == expected[0].read_text()


@dataclass(frozen=True)
class Place:
    """A training gets its signal when it is about to call a function, the ``call``-th time."""

    where: Any
    function: str
    call: int = 1
    settings: tuple[str, ...] = ()
    saved: int | None = None  # the saved step, where that is certain

    def signal_there(self, number: signal.Signals, patch: Callable[[Any, str, Any], None]) -> None:
        function, calls = getattr(self.where, self.function), itertools.count(1)

        def signalling(*arguments: Any, **options: Any) -> Any:
            if next(calls) == self.call:
                os.kill(os.getpid(), number)
            return function(*arguments, **options)

        patch(self.where, self.function, signalling)


PLACES = {
    "reading the dataset": Place(ZarrGameplayDataset, "load_labels"),
    "loading frames": Place(loader, "_fill", saved=0, settings=("dataset.cache=device",)),
    "building the cache": Place(cache, "_build", saved=0, settings=("dataset.cache=disk", "dataset.cache_dir=CACHE")),
    "compiling": Place(jax.stages.Lowered, "compile", saved=0),
    "training": Place(samples.SampleOrder, "batch", 4, saved=3, settings=("dataset.cache=device",)),
    "training from the host": Place(loader.DecodedFrames, "read", 5, settings=("dataset.cache=none",)),
    "validating": Place(Decider, "decide", 5 + 3, saved=5),
    "validating again": Place(Decider, "decide", 5 + 10 + 5 + 3, saved=10),
    "saving": Place(checkpoint_writer, "_write_items", 2),
    "evaluating at the end": Place(finish, "predict_split", saved=10),
}


@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("training", signal.SIGINT),
        ("evaluating at the end", signal.SIGINT),
        *(pytest.param(name, signal.SIGTERM, marks=pytest.mark.slow) for name in PLACES),
    ],
)
def test_a_training_stopped_anywhere_goes_on_as_if_undisturbed(tmp_path, data, undisturbed, monkeypatch, name, number):
    place, here = PLACES[name], shutil.copytree(data, tmp_path / "here.zarr")
    overrides = [*SETTINGS, *(s.replace("CACHE", f"{tmp_path}/cache") for s in place.settings)]
    with monkeypatch.context() as patch:
        place.signal_there(number, patch.setattr)
        with pytest.raises(Interrupted, match=rf"^stopped by {number.name}\b") as stopped:
            run(tmp_path, here, *overrides)
    assert "\n" not in str(stopped.value)
    steps = verify_all(tmp_path)
    if place.saved is not None:
        assert steps[-1] == place.saved
    if name == "validating":  # the training does not finish it
        assert "saved after step 5, epoch 1 of 2" in str(stopped.value)
    if "saved" in str(stopped.value):
        assert f"saved after step {steps[-1]}, epoch" in str(stopped.value)
    run(tmp_path, here.rename(tmp_path / "there.zarr"), *overrides)
    assert_same(tmp_path, undisturbed)


def command(folder: Path, data: Path, *overrides: str) -> list[str]:
    return ["-m", "BC_training", "--config", "configs/pure_cnn.yaml", *settings(folder, data, *SETTINGS, *overrides)]


def wait_for_steps(folder: Path, count: int) -> None:
    """Waits until a training has logged ``count`` steps."""
    file, limit = folder / "l/pure_cnn/metrics.jsonl", time.monotonic() + 300
    while not file.exists() or file.read_text().count("\n") < count:
        assert time.monotonic() < limit
        time.sleep(0.01)


def stopped(process: subprocess.Popen[str]) -> str:
    """Waits for the end of a process that got a signal, and returns its error output."""
    _, errors = process.communicate(timeout=20)  # 9 s by its own limit, the rest for a busy machine
    assert process.returncode == EXIT_CODE, errors
    return errors


def test_an_interrupted_command_exits_with_75_and_one_line(monkeypatch, capsys):
    def train(config, console):
        raise Interrupted("stopped by SIGTERM; saved after step 3")

    monkeypatch.setattr(training, "train", train)
    monkeypatch.setattr("sys.argv", ["BC_training", "--config", "configs/pure_cnn.yaml"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == EXIT_CODE == 75
    assert capsys.readouterr().err == ("stopped by SIGTERM; saved after step 3; run the same command again to go on\n")


def test_a_process_that_stops_by_itself_does_not_wait_for_the_others(monkeypatch):
    """Before training, processes agree on nothing, and an orderly end of one waits for all."""

    def interrupted(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "prepare_devices", interrupted)
    monkeypatch.setattr(command_line.cli, "leave", lambda code: sys.exit(f"left with {code}"))
    monkeypatch.setattr("sys.argv", ["BC_training", "--config", "configs/pure_cnn.yaml"])
    with pytest.raises(SystemExit, match="left with 75"):
        main()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("delays", [[0.5, 1.5, 2.5, 3.5], [1, 2, 3, 4, 5, 6, 7, 8]])
def test_the_command_run_again_and_again_finishes_as_if_undisturbed(tmp_path, data, number, delays):
    undisturbed = tmp_path / "undisturbed"
    endings = []
    for delay in [*delays, None]:
        process = start(command(tmp_path / "stopped", data, "training.num_epochs=40"))
        if delay is not None:
            time.sleep(delay)
            process.send_signal(number)
        _, errors = process.communicate(timeout=300)
        endings.append(process.returncode)
        assert process.returncode in (0, EXIT_CODE, -number, 130), errors  # before Python has come to the training
        verify_all(tmp_path / "stopped")
    assert endings[-1] == 0
    run(undisturbed, data, *SETTINGS, "training.num_epochs=40")
    assert_same(tmp_path / "stopped", undisturbed)


def both(folder: Path, data: Path, *overrides: str) -> list[subprocess.Popen[str]]:
    port = free_port()
    system = [
        f"system.distributed={{coordinator: 'localhost:{port}', num_processes: 2, process_id: {i}}}" for i in (0, 1)
    ]
    return [start(command(folder, data, *overrides, option)) for option in system]


@pytest.mark.slow
@pytest.mark.parametrize("which", [0, 1])
def test_a_signal_to_one_of_two_processes_stops_both(tmp_path, data, which):
    enough = ["training.num_epochs=40"]
    processes = both(tmp_path / "stopped", data, *enough)
    wait_for_steps(tmp_path / "stopped", 7)
    processes[which].send_signal(signal.SIGTERM)
    printed = [stopped(process) for process in processes]
    step = verify_all(tmp_path / "stopped")[-1]
    assert f"stopped by SIGTERM; saved after step {step}" in printed[which]
    assert f"stopped by another process; saved after step {step}" in printed[1 - which]
    assert rows(tmp_path / "stopped")[-1]["step"] == step
    for process in both(tmp_path / "stopped", data, *enough):
        process.communicate(timeout=300)
        assert process.returncode == 0
    for process in both(tmp_path / "undisturbed", data, *enough):
        process.communicate(timeout=300)
    assert_same(tmp_path / "stopped", tmp_path / "undisturbed")
