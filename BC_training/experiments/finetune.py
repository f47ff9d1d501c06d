"""Fine-tunes a clone in play: proximal policy optimisation that begins at the clone and stays near it.

The details follow Huang et al.: The 37 Implementation Details of Proximal Policy Optimization, 2022. The divergence
from the frozen clone is part of the loss, as in OpenAI's VPT (Baker et al. 2022) and AlphaStar (Vinyals et al. 2019).
"""

import contextlib
import os
from functools import partial
from pathlib import Path
from time import perf_counter

import jax.numpy as jnp
from rich.console import Console

from BC_training.common.config import save_config
from BC_training.common.errors import UserError
from BC_training.common.schema import Config
from BC_training.common.storage.store import absent
from BC_training.finetuning.games import ParallelGames
from BC_training.finetuning.playing import Playing
from BC_training.finetuning.ppo import UpdateMetrics, make_update, mean_of, next_kl_weight
from BC_training.finetuning.results import IterationTable, log_iteration, require_finite, show
from BC_training.finetuning.setup import Setup, require_one_process
from BC_training.finish import finish, play_best, print_places
from BC_training.play.play_in_training import play_saved
from BC_training.play.rollout import Benchmark, rollout
from BC_training.runtime.devices import prepare_devices
from BC_training.runtime.interruption import Decider, Decision, Interruption
from BC_training.training.resume import find_start
from BC_training.training.run_folder import lock_run, newest, run_folders
from BC_training.training.saver import Saver
from BC_training.training.tracking import open_tracker, training_progress


def finetune(config: Config, console: Console) -> Path:
    """Runs the fine-tuning that ``config`` describes, as ``finetuning.setup.load_config`` returns it.

    A run that was stopped goes on with the same parameters, optimizer, counters and seeds; its games begin new
    episodes.

    Returns:
        The run's checkpoint folder, ``<checkpoint_dir>/<run_name>``.

    Raises:
        UserError: bad input, found before anything is written.
        Interrupted: SIGTERM or SIGINT came; what there was to save is saved.
    """
    run_dir, log_dir = run_folders(config)
    with Interruption(partial(newest, run_dir)) as interruption, contextlib.ExitStack() as stack:
        device = prepare_devices(config.system)
        require_one_process()
        setup = Setup.build(config)
        options, evaluation = setup.options, config.evaluation
        start = find_start(config, setup.clone.inputs, setup.clone.fingerprint, console)
        progress = start.progress
        console.print(setup.describe(device), soft_wrap=True, markup=False)
        stack.enter_context(lock_run(run_dir, log_dir))
        save_config(config, log_dir / "config.yaml")
        tracker = stack.enter_context(open_tracker(log_dir, config, progress, console))
        start.announce(config, console)
        if not progress.is_finished(config):
            with interruption.deferred(), training_progress(console) as bars:
                state = setup.initial_state(start)
                decider = Decider(interruption, config.training.save_every_minutes, lag=0)
                saver = stack.enter_context(Saver(setup.meta(start), setup.decoding, start, tracker, decider, console))
                benchmark = Benchmark(evaluation.rollout, config.system.workers, console)
                warm_up = make_update(setup.network, setup.optimizer, options, only_value=True)
                update = make_update(setup.network, setup.optimizer, options, only_value=False)
                begun = int(state.opt_state["episodes"])  # by the run before it was stopped
                games = stack.enter_context(
                    ParallelGames(
                        [options.game_at(progress.step)] * options.games,
                        recorded_size=setup.clone.inputs.recorded_size,
                        model_size=setup.clone.inputs.frame_size,
                        processes=config.system.workers or os.cpu_count() or 1,
                        first_seed=options.first_seed + begun,
                        reward=options.reward,
                        live=setup.live,
                    )
                )
                playing = Playing(setup, games, state)
                clone_mean = saver.row.get("clone_mean")
                if clone_mean is None and evaluation.is_play_due(options.iterations, options.iterations):
                    bars.stop()
                    clone_mean = benchmark.score(setup.clone.path)["mean"]
                    bars.start()
                table, bar = IterationTable(console, options), bars.add_task("plays", total=options.steps, status="")

                while not progress.is_finished(config):
                    # Play all games, as far as the update needs.
                    began, before = perf_counter(), state
                    games.switch([options.game_at(progress.step)] * options.games)
                    try:
                        playing.begin(state)
                        while playing.steps < options.horizon:
                            if decider.decide() == Decision.STOP:
                                break
                            playing.step(progress.step + playing.steps * options.games)
                            show(bars, bar, playing, progress, options, saver.row)
                    except UserError:  # such as of a window that was closed
                        saver.save(before)
                        saver.finish()
                        raise

                    # Learn from what was played; a state that is stopped within is that of before.
                    metrics: list[UpdateMetrics] = []
                    learn = warm_up if progress.epochs < options.value_warmup else update
                    batches = playing.minibatches(state.opt_state["clone"], config.system.seed + progress.epochs)
                    for batch in () if decider.stopping else batches:
                        if decider.decide() == Decision.STOP:
                            break
                        state, found = learn(state, *batch)
                        metrics.append(found)
                    if decider.stopping:
                        playing.rest()
                        saver.save(before)
                        break
                    means = mean_of(metrics)
                    learner = state.opt_state | {
                        "kl": next_kl_weight(state.opt_state["kl"], means["kl"], options),
                        "rewards": jnp.asarray(playing.moments, jnp.float32),
                        "episodes": jnp.asarray(begun + games.begun, jnp.int32),
                    }
                    state = state._replace(opt_state=learner)
                    progress.step += options.batch
                    progress.seconds = perf_counter() - began
                    require_finite(means, progress.step)
                    playing.end()

                    # Let the policy play for a score, save and log.
                    iteration, played = progress.epochs + 1, None
                    if evaluation.is_play_due(iteration, options.iterations):
                        saver.save(state)
                        played = play_saved(saver, benchmark, interruption, bars, console, iteration)
                    row = log_iteration(tracker, progress, playing, state, means, options, played, clone_mean)
                    saver.row = row if clone_mean is None else row | {"clone_mean": clone_mean}
                    is_best = played is not None and progress.note_scores(config, {"rollout": played["mean"]})
                    progress.close_epoch()
                    table.add(saver.row, is_best)
                    is_last = progress.is_finished(config)
                    if decider.decide() != Decision.CONTINUE or played is not None or is_last:
                        saver.save(state, is_best or (is_last and evaluation.best_metric != "rollout"))
                    if decider.stopping:
                        break
                saver.finish()
            decider.end_if_stopped(progress.describe(options.iterations))
        references = _play_clone(setup, log_dir, console) if evaluation.rollout is not None else None
        ending = config, run_dir, log_dir, tracker, progress.step, console, references
        if missing := absent(config.dataset.paths):
            note = f"the clone's recordings, {', '.join(missing)}, are not here: no scores on them and no page"
            console.print(note, style="yellow", soft_wrap=True, markup=False)
            print_places(play_best(*ending)[1], console)
        else:
            finish(*ending)
    return run_dir


def _play_clone(setup: Setup, log_dir: Path, console: Console) -> dict[str, list[float]]:
    """Scores the clone in the episodes of the final score; returns the returns of random and the expert there."""
    options = setup.config.evaluation.rollout
    assert options is not None
    return rollout(
        str(setup.clone.path),
        options.known_game,
        console,
        episodes=options.episodes,
        seed=options.seed,
        workers=setup.config.system.workers,
        json_file=log_dir / "clone.json",
        reference_means=options.reference_means,
    ).references
