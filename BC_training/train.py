"""Trains a policy: the loop, its checkpoints, and what the best of them scores in the end."""

import contextlib
from collections import deque
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import jax
import numpy as np
from rich.console import Console

from BC_training.common import metrics
from BC_training.common.config import save_config, to_dict
from BC_training.common.schema import Config
from BC_training.data.loader import Batch, Tier, dispatch_size, make_tier
from BC_training.data.samples import SampleOrder
from BC_training.data.tier_choice import choose_tier
from BC_training.evaluation.split_predictions import predict_logits
from BC_training.finish import finish
from BC_training.play.rollout import Benchmark
from BC_training.runtime.devices import prepare_devices
from BC_training.runtime.interruption import Interrupted, Interruption, Wish, Wishes
from BC_training.runtime.profiling import StepProfiler
from BC_training.runtime.sharding import from_main, replicated
from BC_training.training import checkpoint
from BC_training.training.checkpoint_writer import CheckpointWriter, hold, newest, run_folders
from BC_training.training.losses import make_loss
from BC_training.training.progress import Progress
from BC_training.training.resume import Start, find_start
from BC_training.training.setup import Setup
from BC_training.training.tracking import EpochTable, Tracker, training_progress
from BC_training.training.train_state import StepMetrics, TrainState, make_predict, playing

_LAG = 2  # dispatches between a step's own and reading its metrics, so that reading never stalls it
_SLOW = 1.0  # seconds; a dispatch of this length or more is waited for, so that a signal finds one under way, not three
_WAIT_WORTH_A_WORD = 0.05  # share of an epoch's time


def train(config: Config, console: Console, references: dict[str, list[float]] | None = None) -> Path:
    """Runs the training that ``config`` describes, from recording to rollout.

    Args:
        references: of ``rollout``.

    Returns:
        The run's checkpoint folder, ``<checkpoint_dir>/<run_name>``.

    Raises:
        UserError: bad input, found before anything is written where that is possible.
        Interrupted: SIGTERM or SIGINT came; what there was to save is saved.
    """
    with Interruption() as interruption:
        try:
            return _train(config, console, references, interruption)
        except KeyboardInterrupt:
            where = f"stopped by {interruption.requested}; {interruption.last_saved()}"
            raise Interrupted(where, agreed=False) from None


def _train(
    config: Config, console: Console, references: dict[str, list[float]] | None, interruption: Interruption
) -> Path:
    run_dir, log_dir = run_folders(config)
    interruption.last_saved = lambda: newest(run_dir)
    device = prepare_devices(config.system)
    is_main = jax.process_index() == 0
    console.quiet = console.quiet or not is_main
    setup = Setup.build(config, console)
    start = Start.from_dict(from_main(lambda: find_start(config, setup.inputs, setup.fingerprint, console).to_dict()))
    progress = start.progress
    console.print(setup.describe(device), soft_wrap=True)
    with contextlib.ExitStack() as stack:
        writer = None
        if is_main:
            for folder in dict.fromkeys((run_dir, log_dir)):
                stack.enter_context(hold(folder))
            writer = stack.enter_context(CheckpointWriter(run_dir, config.training.keep_last, console))
        # Where a finished run is scored anew, its last row, of the rollout, is written anew as well.
        is_kept = progress.is_finished(config) and config.evaluation.rollout is None
        position = None if is_kept else progress.log_bytes
        tracker = stack.enter_context(
            Tracker(log_dir, config, console, position=position, wandb_id=progress.wandb_id, writes=is_main)
        )
        progress.wandb_id = tracker.wandb_id or progress.wandb_id
        if is_main:
            save_config(config, log_dir / "config.yaml")
        if start.step_folder is not None:
            where = f"step {progress.step:,}, epoch {progress.epochs} of {config.training.num_epochs} done"
            again = f"the run is finished ({where}): training.resume=never would train anew"
            console.print(again if progress.is_finished(config) else f"going on after {where}", soft_wrap=True)
        if not progress.is_finished(config):
            with interruption.deferred():
                run_epochs(setup, start, writer, tracker, interruption, console)
        if is_main:
            finish(config, run_dir, log_dir, tracker, progress.step, console, references)
    return run_dir


def run_epochs(
    setup: Setup,
    start: Start,
    writer: CheckpointWriter | None,
    tracker: Tracker,
    interruption: Interruption,
    console: Console,
) -> None:
    """Trains from ``start`` to the last epoch, or until early stopping ends it; ``start.progress`` goes along.

    Args:
        writer: None in a process that saves nothing.

    Raises:
        UserError: a step was not finite, frames cannot be read, or nothing can be saved.
        Interrupted: after saving.
    """
    config, training = setup.config, setup.config.training
    progress, order = start.progress, setup.order
    wishes = Wishes(interruption, training.save_every_minutes, _LAG)
    profile_steps = None if writer is None else training.profile_steps
    profiler = StepProfiler(profile_steps, tracker.path.with_name("profile"), console)
    predict = make_predict(setup.model, replicated(setup.mesh))
    loss = make_loss(training, setup.class_weights)
    row: dict[str, Any] = {}  # of the last epoch that ended
    delivery: dict[str, Any] = {"backend": jax.default_backend()}  # how batches reach the steps
    play_options = config.evaluation.rollout
    benchmark = Benchmark(play_options, config.system.workers, console) if play_options is not None else None
    if writer is not None and start.step_folder is not None:
        row = checkpoint.read(start.step_folder).metrics

    def proceed(steps: range, state: TrainState) -> bool:
        if writer is not None:
            writer.poll()
        profiler.before(steps, state)
        return wishes.next() == Wish.GO_ON

    def on_step(values: dict[str, float]) -> None:
        setup.require_finite(values, progress.step)
        rate, waited = progress.speed(order)
        status = f"{rate:,.0f} frames/s  data {waited:.0%}  loss {values['loss']:.4f}"
        epoch = f"epoch {progress.epochs + 1}/{training.num_epochs}"
        bars.update(bar, completed=progress.step, description=epoch, status=status)
        if progress.step % config.logging.log_every_steps == 0:
            speed = {"frames_per_second": rate, "data_wait": waited}
            tracker.log("train", progress.step, {"epoch": progress.epochs + 1, **values, **speed})

    def validate(state: TrainState) -> metrics.Report:
        params, batch_stats = playing(state)

        def predict_batch(batch: Batch) -> jax.Array:
            if wishes.next() == Wish.STOP:
                raise Interrupted
            return predict(params, batch_stats, batch)

        logits = predict_logits(predict_batch, val_tier, len(setup.val_samples), config.evaluation.batch_size)
        report = metrics.report(
            [setup.dataset.actions(e) for e in setup.split["val"]],
            np.asarray(jax.nn.sigmoid(logits)),
            setup.majority,
            setup.dataset.action_names,
            setup.decoding,
            setup.inputs.window.action_shift,
        )
        return report | {"loss": float(loss(logits, setup.val_samples.targets))}

    def save(state: TrainState, is_best: bool = False) -> None:
        progress.log_bytes = tracker.position()
        meta = {
            "epoch": progress.epochs,
            "config": to_dict(config),
            "inputs": setup.inputs.to_dict(),
            "decoding": setup.decoding.to_dict(),
            "split": setup.dataset.names_of(setup.split),
            "seeds": setup.seeds,
            "majority": setup.majority.tolist(),
            "metrics": row,
            "fingerprint": setup.fingerprint,
            "progress": progress.to_dict(),
            "delivery": delivery,
        }
        if writer is not None:
            writer.save(state, meta, is_best)
        wishes.saved()

    def play(state: TrainState) -> dict[str, float] | None:
        """Scores the state in play, from the checkpoint it is saved in first; None where it cannot be saved now."""
        save(state)

        def score() -> dict[str, float] | None:
            assert writer is not None
            assert benchmark is not None
            if (folder := writer.settle()) is not None:
                return benchmark.score(folder)
            console.print(f"epoch {progress.epochs + 1} is not played: it could not be saved", style="yellow")
            return None

        bars.stop()
        with interruption.immediate():
            scores = from_main(score)
        bars.start()
        return scores

    with training_progress(console) as bars:
        options = choose_tier(config.dataset, setup.dataset, setup.inputs.frame_size, console, start.cache)
        train_tier = make_tier(options, setup.train_samples, setup.inputs.frame_size, bars, setup.mesh)
        val_tier = make_tier(options, setup.val_samples, setup.inputs.frame_size, bars, setup.mesh)
        bar = bars.add_task("compiling", total=order.steps_per_epoch * training.num_epochs, status="")
        state = setup.initial_state(start)
        size = dispatch_size(train_tier, training.steps_per_dispatch, start.steps_per_dispatch)
        delivery |= {"cache": train_tier.name, "steps_per_dispatch": size}
        train_steps = setup.compile_steps(state, train_tier, size)
        table = EpochTable(console)
        while not progress.is_finished(config):
            state = train_epoch(train_steps, state, train_tier, order, progress, on_step, proceed)
            epoch, report, played = progress.epochs + 1, None, None
            is_whole = progress.step == epoch * order.steps_per_epoch
            if is_whole and config.evaluation.is_due(epoch, training.num_epochs):
                with contextlib.suppress(Interrupted):
                    report = validate(state)
                is_whole = report is not None
            if report is not None and config.evaluation.is_play_due(epoch, training.num_epochs):
                played = play(state)
                report |= {} if played is None else {"rollout": played["mean"]}
            if not is_whole:  # a signal, or time to save
                save(state)
                if wishes.stopping:
                    break
                continue
            rate, waited = progress.speed(order)
            mean_loss = progress.loss_sum / order.steps_per_epoch
            row = {"epoch": epoch, "train_loss": mean_loss, "frames_per_second": rate, "data_wait": waited}
            tracker.log("epoch", progress.step, row)
            if epoch == 1 and waited > _WAIT_WORTH_A_WORD:
                hint = f"; {train_tier.faster} would help" if train_tier.faster else ""
                console.print(f"the step waits for data {waited:.0%} of the time{hint}", soft_wrap=True)
            is_best = False
            if report is not None:
                tracker.log("val", progress.step, {"epoch": epoch, **metrics.flatten(report)})
                row["val"] = report
                if played is not None:
                    tracker.log("rollout", progress.step, {"epoch": epoch, **played})
                is_best = progress.note_scores(config, report)
            progress.close_epoch()
            table.add(row, is_best)
            save(state, is_best)
        profiler.stop(state)
    if writer is not None:
        writer.finish()
    if wishes.stopping or interruption.requested is not None:
        where = (
            f"step {progress.step:,}, epoch {min(progress.epochs + 1, training.num_epochs)} of {training.num_epochs}"
        )
        raise Interrupted(f"stopped by {interruption.requested or 'another process'}; saved after {where}")


def train_epoch(
    train_steps: dict[int, Callable[[TrainState, Any, Any], tuple[TrainState, StepMetrics]]],
    state: TrainState,
    tier: Tier,
    order: SampleOrder,
    progress: Progress,
    on_step: Callable[[dict[str, float]], None],
    proceed: Callable[[range, TrainState], bool],
) -> TrainState:
    """Takes the steps that are left of ``progress``'s epoch, or as many as ``proceed`` lets it.

    Args:
        train_steps: compiled steps by how many of them one dispatch takes.
        progress: goes along with the steps whose metrics were read: all that were taken, in the end.
        on_step: called with the metrics of every step, ``_LAG`` dispatches late.
        proceed: called before every dispatch with its steps and the state; False ends it here.
    """
    dispatches = order.dispatches(progress.epochs, max(train_steps), progress.step)
    batches = tier.items(np.stack([order.batch(step) for step in steps]) for steps in dispatches)
    pending: deque[tuple[range, StepMetrics]] = deque()
    start, seconds, lag = perf_counter(), progress.seconds, _LAG

    def report_oldest() -> None:
        steps, step_metrics = pending.popleft()
        columns = {name: np.asarray(values) for name, values in step_metrics._asdict().items()}
        progress.seconds = seconds + perf_counter() - start
        for i, step in enumerate(steps):
            values = {name: float(column[i]) for name, column in columns.items()}
            progress.step, progress.loss_sum = step + 1, progress.loss_sum + values["loss"]
            on_step(values)

    for number, steps in enumerate(dispatches):
        if not proceed(steps, state):
            break
        before = perf_counter()
        items = next(batches)
        progress.waited += perf_counter() - before
        state, step_metrics = train_steps[len(steps)](state, tier.data, items)
        pending.append((steps, step_metrics))
        while len(pending) > lag:
            report_oldest()
        # Of several processes a signal counts some dispatches later anyhow.
        if number == _LAG and jax.process_count() == 1 and perf_counter() - start > _SLOW:
            lag = 0
    while pending:
        report_oldest()
    batches.close()
    progress.seconds = seconds + perf_counter() - start
    return state
