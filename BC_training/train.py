"""Trains a policy: data, model, the loop, and what the best checkpoint scores in the end."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from time import perf_counter
from typing import Any

import jax
import numpy as np
from rich.console import Console
from rich.progress import Progress

from BC_training.common import checkpoint, metrics
from BC_training.common.augment import make_augment
from BC_training.common.checkpoint import CheckpointWriter, fresh_folders
from BC_training.common.config import save_config, to_dict
from BC_training.common.dataset import ZarrGameplayDataset, class_weights
from BC_training.common.devices import choose_device
from BC_training.common.errors import UserError
from BC_training.common.loader import Tier, choose_tier, faster_tier, make_tier
from BC_training.common.losses import binary_cross_entropy
from BC_training.common.preprocess import InputSpec
from BC_training.common.samples import SampleOrder, Samples
from BC_training.common.schema import Config
from BC_training.common.store import is_remote
from BC_training.common.tracking import EpochTable, Tracker, training_progress
from BC_training.common.train_state import (
    StepMetrics,
    TrainState,
    init_state,
    make_optimizer,
    make_predict,
    make_train_step,
    split_model,
)
from BC_training.evaluate import evaluate, predict_logits
from BC_training.games import make_game, require_game
from BC_training.games.players import require_fit
from BC_training.record import record_missing
from BC_training.rollout import rollout

_LAG = 2  # dispatches between a step's own and reading its metrics, so that reading never stalls it
_STEPS_PER_DISPATCH = 8  # on an accelerator, whose step can be shorter than its dispatch
_WAIT_WORTH_A_WORD = 0.05  # share of an epoch's time


def train(config: Config, console: Console) -> Path:
    """Runs the training that ``config`` describes, from recording to rollout.

    Returns:
        The run's checkpoint folder, ``<checkpoint_dir>/<run_name>``.

    Raises:
        UserError: bad input, found before anything is written where that is possible.
    """
    device = choose_device(config.system.device)
    if config.evaluation.rollout is not None:
        require_game(config.evaluation.rollout.game)
    dataset = _open_dataset(config, console)
    split = dataset.split(asdict(config.dataset.split), config.system.seed)
    inputs = InputSpec(
        dataset.action_names,
        dataset.state_names,
        dataset.frame_size,
        config.dataset.frame_size or dataset.frame_size,
        dataset.fps,
        config.window(),
    )
    augment = make_augment(config.training.augmentation, inputs, dataset.mirror)
    _require_playable(config, inputs)
    model = split_model(config, inputs)
    train_samples = Samples(dataset, split["train"], inputs.window)
    val_samples = Samples(dataset, split["val"], inputs.window)
    order = train_samples.order(config.training.batch_size, config.system.seed, config.dataset.oversample)
    total_steps = order.steps_per_epoch * config.training.num_epochs
    optimizer, schedule = make_optimizer(config.training, total_steps)
    weights = class_weights(
        train_samples.frequencies(order), config.training.class_weights, config.training.max_class_weight
    )
    state = init_state(model, optimizer)
    majority = metrics.majority_actions(train_samples.targets)

    run_dir, log_dir, aside = fresh_folders(config)
    if aside is not None:
        console.print(f"the earlier run '{config.logging.run_name}' is kept as '{aside}'")
    save_config(config, log_dir / "config.yaml")
    console.print(
        f"{config.model.name}: {model.parameter_count:,} parameters on {device}; "
        f"{len(train_samples):,} training and {len(val_samples):,} validation frames of "
        f"{inputs.frame_size[0]}x{inputs.frame_size[1]}; {order.steps_per_epoch} steps an epoch",
        soft_wrap=True,
    )
    predict = make_predict(model.graphdef)

    def validate(state: TrainState, tier: Tier) -> metrics.Report:
        logits = predict_logits(
            lambda batch: predict(state.params, state.batch_stats, batch),
            tier,
            len(val_samples),
            config.evaluation.batch_size,
        )
        report = metrics.report(
            [dataset.actions(e) for e in split["val"]],
            np.asarray(jax.nn.sigmoid(logits)),
            majority,
            dataset.action_names,
            config.evaluation.threshold,
            inputs.window.action_shift,
        )
        loss = binary_cross_entropy(logits, val_samples.targets, weights, config.training.label_smoothing)
        return report | {"loss": float(loss)}

    with Tracker(log_dir, config, console) as tracker:
        with CheckpointWriter(run_dir, config.training.keep_last) as writer, training_progress(console) as progress:
            options = choose_tier(config.dataset, dataset, inputs.frame_size)
            train_tier = make_tier(options, train_samples, inputs.frame_size, progress)
            val_tier = make_tier(options, val_samples, inputs.frame_size, progress)
            bar = progress.add_task("compiling", total=total_steps, status="")
            step_function = make_train_step(model, optimizer, schedule, weights, config, train_tier.gather, augment)
            train_steps = _compiled(step_function, state, train_tier, order, config.training.steps_per_dispatch)

            def on_step(step: int, values: dict[str, float], rate: float, waited: float) -> None:
                _require_finite(values, step, order, train_samples)
                epoch = 1 + (step - 1) // order.steps_per_epoch
                status = f"{rate:,.0f} frames/s  data {waited:.0%}  loss {values['loss']:.4f}"
                description = f"epoch {epoch}/{config.training.num_epochs}"
                progress.update(bar, completed=step, description=description, status=status)
                if step % config.logging.log_every_steps == 0:
                    speed = {"frames_per_second": rate, "data_wait": waited}
                    tracker.log("train", step, {"epoch": epoch, **values, **speed})

            table = EpochTable(console)
            for epoch in range(1, config.training.num_epochs + 1):
                state, loss, rate, waited = train_epoch(train_steps, state, train_tier, order, epoch - 1, on_step)
                row: dict[str, Any] = {"epoch": epoch, "train_loss": loss, "frames_per_second": rate}
                row["data_wait"] = waited
                tracker.log("epoch", int(state.step), row)
                if epoch == 1 and waited > _WAIT_WORTH_A_WORD:
                    advice = faster_tier(train_tier.name, dataset, inputs.frame_size)
                    hint = f"; {advice} would help" if advice else ""
                    console.print(f"the step waits for data {waited:.0%} of the time{hint}", soft_wrap=True)
                score = None
                if epoch % config.evaluation.every_n_epochs == 0 or epoch == config.training.num_epochs:
                    row["val"] = validate(state, val_tier)
                    tracker.log("val", int(state.step), {"epoch": epoch, **metrics.flatten(row["val"])})
                    score = _score(row["val"], config.evaluation.best_metric)
                meta = {
                    "epoch": epoch,
                    "config": to_dict(config),
                    "inputs": inputs.to_dict(),
                    "threshold": config.evaluation.threshold,
                    "split": dataset.names_of(split),
                    "majority": majority.tolist(),
                    "metrics": row,
                }
                table.add(row, is_best=writer.save(state, meta, score))
        _finish(config, run_dir, log_dir, tracker, int(state.step), console)
    return run_dir


def train_epoch(
    train_steps: dict[int, Callable[[TrainState, Any, Any], tuple[TrainState, StepMetrics]]],
    state: TrainState,
    tier: Tier,
    order: SampleOrder,
    epoch: int,
    on_step: Callable[[int, dict[str, float], float, float], None],
) -> tuple[TrainState, float, float, float]:
    """One pass over the training set.

    Args:
        train_steps: compiled steps by how many of them one dispatch takes.
        epoch: counted from 0.
        on_step: called for every step, ``_LAG`` dispatches late, with the steps taken, its
            metrics, and of the epoch so far the frames/s and the share of time spent waiting
            for data.

    Returns:
        The new state, the mean loss, frames per second, and the share of time waited.
    """
    first = epoch * order.steps_per_epoch
    dispatches = order.dispatches(epoch, max(train_steps))
    batches = tier.items(np.stack([order.batch(step) for step in steps]) for steps in dispatches)
    pending: deque[tuple[range, StepMetrics]] = deque()
    losses: list[float] = []
    start, waited = perf_counter(), 0.0

    def report_oldest() -> None:
        steps, step_metrics = pending.popleft()
        columns = {name: np.asarray(values) for name, values in step_metrics._asdict().items()}
        seconds = perf_counter() - start
        rate = (steps.stop - first) * order.batch_size / seconds
        for i, step in enumerate(steps):
            values = {name: float(column[i]) for name, column in columns.items()}
            losses.append(values["loss"])
            on_step(step + 1, values, rate, waited / seconds)

    for steps in dispatches:
        before = perf_counter()
        items = next(batches)
        waited += perf_counter() - before
        state, step_metrics = train_steps[len(steps)](state, tier.data, items)
        pending.append((steps, step_metrics))
        if len(pending) > _LAG:
            report_oldest()
    while pending:
        report_oldest()
    seconds = perf_counter() - start
    return state, float(np.mean(losses)), order.steps_per_epoch * order.batch_size / seconds, waited / seconds


def _compiled(
    step_function: Any, state: TrainState, tier: Tier, order: SampleOrder, steps_per_dispatch: int | None
) -> dict[int, Any]:
    """The steps compiled, by how many of them one dispatch takes: the size that is used, and 1."""
    if tier.name != "device":
        steps_per_dispatch = 1  # the host delivers batch by batch
    elif steps_per_dispatch is None:
        steps_per_dispatch = 1 if jax.default_backend() == "cpu" else _STEPS_PER_DISPATCH
    sizes = {len(steps) for steps in order.dispatches(0, steps_per_dispatch)}
    compiled = {}
    for size in sizes:
        item = next(tier.items(iter([np.stack([order.batch(0)] * size)])))
        compiled[size] = step_function.lower(state, tier.data, item).compile()
    return compiled


def _open_dataset(config: Config, console: Console) -> ZarrGameplayDataset:
    """The dataset, recorded first where it is missing and the config says how."""
    options = config.dataset
    if options.record is not None and not is_remote(options.path):
        record_missing(options.path, options.record, config.system.workers, console)
    elif not is_remote(options.path) and not Path(options.path).exists():
        raise UserError(
            f"no dataset at {options.path}: set dataset.path, record one with "
            f"'record --out {options.path}', or give the config a dataset.record section"
        )
    dataset = ZarrGameplayDataset.from_config(options)
    what = "all of it" if options.validate_episodes else "actions and state"
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task(f"reading {what}", total=len(dataset))
        dataset.load_labels(lambda frames: progress.update(bar, advance=frames))
    rate = f" at {dataset.fps:.4g}/s" if dataset.fps else ""
    console.print(
        f"dataset {options.path}: {len(dataset.episodes)} episodes, {len(dataset):,} frames{rate}, "
        f"{len(dataset.action_names)} actions, {len(dataset.state_names)} state values",
        soft_wrap=True,
    )
    if dataset.skipped:
        listed = "; ".join(f"{s.name}: {s.reason}" for s in dataset.skipped)
        console.print(f"skipped {len(dataset.skipped)} faulty episodes ({listed})", style="yellow", soft_wrap=True)
    return dataset


def _require_playable(config: Config, inputs: InputSpec) -> None:
    """Starts the game of the final rollout once, so that a misfit shows now and not after training."""
    options = config.evaluation.rollout
    if options is not None:
        env = make_game(options.game, frame_size=inputs.recorded_size, skill=options.skill)
        try:
            require_fit(f"{config.dataset.path} (evaluation.rollout=null trains without play)", inputs, env)
        finally:
            env.close()


def _finish(config: Config, run_dir: Path, log_dir: Path, tracker: Tracker, step: int, console: Console) -> None:
    """Scores the best checkpoint, offline and in play, and says where everything is."""
    evaluate(run_dir, console, json_file=log_dir / "evaluation.json")
    places = {"checkpoint": checkpoint.find(run_dir), "metrics": tracker.path, "scores": log_dir / "evaluation.json"}
    options = config.evaluation.rollout
    if options is not None:
        video = log_dir / "rollout.mp4" if options.video else None
        result = rollout(
            str(run_dir),
            options.game,
            console,
            episodes=options.episodes,
            seed=options.seed,
            skill=options.skill,
            workers=config.system.workers,
            json_file=log_dir / "rollout.json",
            video=video,
        )
        scores = ("mean", "normalized", "random_mean", "expert_mean")
        tracker.log("rollout", step, {k: result[k] for k in scores if result[k] is not None})
        places |= {"rollout": log_dir / "rollout.json"} | ({"video": video} if video else {})
    for label, place in places.items():
        console.print(f"{label:>10}  {place}", soft_wrap=True, highlight=False)


def _require_finite(values: dict[str, float], step: int, order: SampleOrder, samples: Samples) -> None:
    if math.isfinite(values["loss"]) and math.isfinite(values["grad_norm"]):
        return
    episodes = sorted({f"{name}:{frame}" for name, frame in samples.locate(order.batch(step - 1))})
    raise UserError(
        f"step {step} is not finite (loss {values['loss']}, gradient norm {values['grad_norm']}); lower "
        f"training.learning_rate or look at its batch (episode:frame): {', '.join(episodes)}"
    )


def _score(report: metrics.Report, name: str) -> float:
    """The value of ``evaluation.best_metric``, so that higher is better and undefined is worst."""
    value = report[name]
    if value is None or math.isnan(value):
        return -math.inf
    return -value if name == "loss" else value
