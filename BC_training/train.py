"""Trains a policy: the loop, its checkpoints, and the scores of the best one."""

import contextlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
from rich.console import Console

from BC_training.common.config import save_config
from BC_training.common.metrics import Report
from BC_training.common.schema import Config
from BC_training.evaluation.validation import validate
from BC_training.finish import finish
from BC_training.play.missing_dataset import record_missing_dataset
from BC_training.play.play_in_training import play_saved
from BC_training.play.rollout import Benchmark
from BC_training.runtime.devices import prepare_devices
from BC_training.runtime.interruption import Decider, Decision, Interruption
from BC_training.runtime.profiling import StepProfiler
from BC_training.runtime.sharding import from_main
from BC_training.training.run_folder import lock_run, newest, run_folders
from BC_training.training.saver import Saver, meta_of
from BC_training.training.setup import Setup, require_runnable
from BC_training.training.step_log import LAG, StepLog, advise_on_waiting
from BC_training.training.tracking import EpochTable, log_epoch, open_tracker, training_progress


def train(
    config: Config,
    console: Console,
    references: dict[str, list[float]] | None = None,
    is_promising: Callable[[int, Report], bool] = lambda epoch, report: True,
) -> Path:
    """Runs the training that ``config`` describes, from recording to rollout, which takes ``references``.

    ``is_promising`` is called with the number and the scores of each epoch that is evaluated, once that is being
    saved; where it returns False, the training ends there, without final scores.

    Returns:
        The run's checkpoint folder, ``<checkpoint_dir>/<run_name>``.

    Raises:
        UserError: bad input, found before anything is written where that is possible.
        Interrupted: SIGTERM or SIGINT came; what there was to save is saved.
    """
    run_dir, log_dir = run_folders(config)
    with Interruption(partial(newest, run_dir)) as interruption, contextlib.ExitStack() as stack:
        # Set-up: the device, the data, the model, and where this run was stopped before.
        device = prepare_devices(config.system)
        is_main = jax.process_index() == 0
        console.quiet = console.quiet or not is_main
        require_runnable(config)
        from_main(partial(record_missing_dataset, config, console))
        setup = Setup.build(config, console)
        config, training, evaluation = setup.config, setup.config.training, setup.config.evaluation
        start = setup.find_start(console)
        progress, order = start.progress, setup.order
        console.print(setup.describe(device), soft_wrap=True)
        if is_main:
            stack.enter_context(lock_run(run_dir, log_dir))
            save_config(config, log_dir / "config.yaml")
        tracker = stack.enter_context(open_tracker(log_dir, config, progress, console))
        start.announce(config, console)
        is_given_up = False
        if not progress.is_finished(config):
            with interruption.deferred(), training_progress(console) as bars:
                train_tier, val_tier, size = setup.make_tiers(start, bars, console)
                decider = Decider(interruption, training.save_every_minutes, LAG)
                meta = meta_of(setup, start, train_tier, size)
                saver = stack.enter_context(Saver(meta, setup.decoding, start, tracker, decider, console))
                benchmark = Benchmark(evaluation.rollout, config.system.workers, console)
                profiler = StepProfiler(training.profile_steps if is_main else None, log_dir / "profile", console)
                step_log, table = StepLog(setup, progress, tracker, bars), EpochTable(console)
                state = setup.initial_state(start, console)
                train_steps = setup.compile_steps(state, train_tier, size)

                while not progress.is_finished(config) and not is_given_up:
                    # Train until the epoch ends, a signal comes, or it is time to save.
                    dispatches = order.dispatches(progress.epochs, size, progress.step)
                    batches = train_tier.items(order.batches(dispatches))
                    step_log.start_epoch()
                    for steps in dispatches:
                        saver.poll()
                        profiler.before(steps, state)
                        if decider.decide() != Decision.CONTINUE:
                            break
                        batch = step_log.next_batch(batches)
                        state, step_metrics = train_steps[len(steps)](state, train_tier.data, batch)
                        step_log.add(steps, step_metrics)
                    step_log.read_all()
                    batches.close()

                    # Validate and play, where the epoch is whole.
                    epoch, report, played = progress.epochs + 1, None, None
                    is_whole = progress.step == epoch * order.steps_per_epoch
                    if is_whole and evaluation.is_due(epoch, training.num_epochs):
                        report = validate(setup, state, val_tier, decider)
                        is_whole = report is not None
                    if report is not None and evaluation.is_play_due(epoch, training.num_epochs):
                        saver.save(state)
                        played = play_saved(saver, benchmark, interruption, bars, console, epoch)
                        report |= {} if played is None else {"rollout": played["mean"]}

                    # Save; at the end of an epoch log it first, and note the scores.
                    is_best = False
                    if is_whole:
                        saver.row = log_epoch(tracker, progress, order, report, played)
                        if epoch == 1:
                            advise_on_waiting(train_tier, saver.row["data_wait"], console)
                        is_best = report is not None and progress.note_scores(config, report)
                        progress.close_epoch()
                        table.add(saver.row, is_best)
                    saver.save(state, is_best)
                    is_given_up = is_whole and report is not None and not is_promising(epoch, report)
                    if decider.stopping:
                        break
                profiler.stop(state)
                saver.finish()
            decider.end_if_stopped(progress.describe(training.num_epochs))
        if is_main and not is_given_up:
            finish(config, run_dir, log_dir, tracker, progress.step, console, references)
    return run_dir
