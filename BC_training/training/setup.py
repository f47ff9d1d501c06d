"""What a training is made of, built from its config and checked before anything is written."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
import optax
from jax.sharding import Mesh
from rich.console import Console
from rich.progress import Progress

from BC_training.common import metrics
from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.decode import Decoding
from BC_training.common.errors import UserError
from BC_training.common.preprocess import InputSpec
from BC_training.common.schema import Config
from BC_training.data.augment import make_augment
from BC_training.data.inputs import fit_inputs
from BC_training.data.loader import Batch, Tier, dispatch_size, make_tier
from BC_training.data.order import SampleOrder
from BC_training.data.returns import weigh
from BC_training.data.samples import Samples
from BC_training.data.several_datasets import open_configured
from BC_training.data.tier_choice import choose_tier
from BC_training.games import GameSpec
from BC_training.games.dataset_game import with_game
from BC_training.runtime.sharding import all_devices, broadcast, from_main, replicated, to_devices
from BC_training.training import warm_start
from BC_training.training.checkpoint import read_state
from BC_training.training.losses import Loss, make_loss
from BC_training.training.resume import Start, find_start, fingerprint
from BC_training.training.seeds import Seeds, planned_seeds, recorded_seeds, require_unseen
from BC_training.training.train_state import (
    SplitModel,
    TrainState,
    Tree,
    abstract_model,
    abstract_state,
    init_state,
    make_optimizer,
    make_predict,
    make_train_step,
    split_model,
)


@dataclass(frozen=True, eq=False)
class Setup:
    """Everything that a training needs and does not change."""

    config: Config  # with the game that is played and the metric that chooses, also where the user's leaves them
    mesh: Mesh  # the devices that a batch is split over
    dataset: ZarrGameplayDataset
    fingerprint: str  # identifies the dataset
    split: dict[str, list[int]]  # "train", "val" and "test" to positions in dataset.episodes
    seeds: Seeds
    inputs: InputSpec
    train_samples: Samples
    val_samples: Samples
    order: SampleOrder
    augment: Callable[[jax.Array, Batch], Batch]  # changes a batch inside the step, given the step's key
    decoding: Decoding
    model: SplitModel  # with shapes in place of arrays
    optimizer: optax.GradientTransformation
    schedule: optax.Schedule
    predict: Callable[[Tree, Tree, Batch], jax.Array]  # as make_predict returns it
    loss: Loss  # for validation
    class_weights: np.ndarray  # float32 [A]
    majority: np.ndarray  # bool [A], the training split's commonest combination of buttons

    @classmethod
    def build(cls, config: Config, console: Console) -> "Setup":
        """Opens the dataset and builds what a training needs beside it; raises a UserError where they do not fit."""
        mesh = all_devices()
        dataset = _open_dataset(config, console)
        split = dataset.split(config.dataset.split.shares, config.system.seed, config.dataset.split.by_player)
        seeds = recorded_seeds(dataset, split)
        config = with_metric(config, dataset)
        inputs = fit_inputs(config, dataset, split["train"])
        bins = inputs.axis_bins
        decoding = config.evaluation.decoding(dataset.action_names)
        augment = make_augment(config.training.augmentation, inputs, dataset.mirror)
        config = with_game(config, dataset, inputs, console)
        require_unseen(config.evaluation.rollout, [*seeds["train"], *seeds["val"]], dataset.path)
        model = abstract_model(config, inputs)
        warm_start.require_fit(config, model)
        by_return, trained, shares = weigh(config.training.weight_by_return, dataset, split["train"], console)
        config = replace(config, training=replace(config.training, weight_by_return=by_return))
        train_samples = Samples(dataset, trained, inputs.window, bins)
        val_samples = Samples(dataset, split["val"], inputs.window, bins)
        shortest = min(episode.length for episode in dataset.episodes)
        if inputs.window.span > shortest:
            console.print(
                f"a history of {inputs.window.span} frames is longer than the shortest episode ({shortest}): before an "
                "episode its first frame stands in",
                soft_wrap=True,
            )
        order = train_samples.order(config.training.batch_size, config.system.seed, config.dataset.oversample, shares)
        optimizer, schedule = make_optimizer(config.training, order.steps_per_epoch * config.training.num_epochs)
        weights = metrics.class_weights(
            train_samples.frequencies(order), config.training.class_weights, config.training.max_class_weight
        )
        return cls(
            config,
            mesh,
            dataset,
            fingerprint(dataset),
            split,
            seeds,
            inputs,
            train_samples,
            val_samples,
            order,
            augment,
            decoding,
            model,
            optimizer,
            schedule,
            make_predict(model, replicated(mesh)),
            make_loss(config.training, weights, bins),
            weights,
            metrics.majority_actions(train_samples.targets),
        )

    def describe(self, device: str) -> str:
        height, width = self.inputs.frame_size
        return (
            f"{self.config.model.name}: {self.model.parameter_count:,} parameters on {device}; "
            f"{len(self.train_samples):,} training and {len(self.val_samples):,} validation frames of "
            f"{height}x{width}; {self.order.steps_per_epoch} steps an epoch"
        )

    def find_start(self, console: Console) -> Start:
        """``resume.find_start`` in the first process, which decides for all."""
        answer = from_main(lambda: find_start(self.config, self.inputs, self.fingerprint, console).to_dict())
        return Start.from_dict(answer)

    def make_tiers(self, start: Start, bars: Progress, console: Console) -> tuple[Tier, Tier, int]:
        """The tiers of the training and the validation split, and how many steps one dispatch takes."""
        size, wanted = self.inputs.frame_size, self.config.training.steps_per_dispatch
        options = choose_tier(self.config.dataset, self.dataset, size, console, start.cache)
        train_tier = make_tier(options, self.train_samples, size, bars, self.mesh)
        val_tier = make_tier(options, self.val_samples, size, bars, self.mesh)
        return train_tier, val_tier, dispatch_size(train_tier, wanted, start.steps_per_dispatch)

    def initial_state(self, start: Start, console: Console) -> TrainState:
        """The state on all devices, read from the checkpoint or drawn from the seed and ``training.init_from``."""
        averaged = self.config.training.ema_decay is not None
        if start.step_folder is None:
            model = warm_start.take_over(self.config, split_model(self.config, self.inputs), console)
            state = init_state(model, self.optimizer, averaged)
        else:
            like = abstract_state(self.model, self.optimizer, averaged)
            if jax.process_index() == 0:
                state = read_state(start.step_folder, like)
            else:
                state = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), like)
            state = broadcast(state)
        return to_devices(jax.tree.map(np.asarray, state), replicated(self.mesh))

    def require_finite(self, values: dict[str, float], step: int) -> None:
        """Raises a UserError that lists the batch of ``step``, counted from 1, if its metrics are not finite."""
        if all(math.isfinite(values[name]) for name in ("loss", "grad_norm", "param_norm")):
            return
        batch = self.train_samples.locate(self.order.batch(step - 1))
        episodes = sorted({f"{name}:{frame}" for name, frame in batch})
        raise UserError(
            f"step {step} is not finite (loss {values['loss']}, gradient norm {values['grad_norm']}, "
            f"parameter norm {values['param_norm']}), the checkpoints before it are kept; lower "
            f"training.learning_rate or look at its batch (episode:frame): {', '.join(episodes)}"
        )

    def compile_steps(self, state: TrainState, tier: Tier, size: int) -> dict[int, Any]:
        """The training steps compiled, by how many of them, at most ``size``, one dispatch takes."""
        step_function = make_train_step(
            self.model,
            self.optimizer,
            self.schedule,
            self.class_weights,
            self.config,
            tier.gather,
            self.augment,
            replicated(self.mesh),
        )
        compiled = {}
        for k in {len(steps) for steps in self.order.dispatches(0, size)} | {1}:
            item = next(tier.items(iter([np.stack([self.order.batch(0)] * k)])))
            compiled[k] = step_function.lower(state, tier.data, item).compile()
        return compiled


def require_runnable(config: Config) -> None:
    """Checks a config on this machine, before anything is recorded.

    Raises:
        UserError: it is of a fine-tuning, ``training.init_from`` is no checkpoint, the batch cannot be split over the
            devices, the game does not exist, or what is to be recorded is also to be played for a score.
    """
    if config.finetune is not None:
        raise UserError("config: the section finetune is for the command of that name: finetune --config FILE")
    warm_start.require_source(config)
    devices, play, size = all_devices().size, config.evaluation.rollout, config.training.batch_size
    if size % devices:
        below = size // devices * devices
        fit = f"{below} or {below + devices}" if below else devices
        raise UserError(f"training.batch_size={size} cannot be split over {devices} devices: use {fit}")
    if play is not None and play.game is not None:
        GameSpec.parse(play.game)
    if (record := config.dataset.record) is not None and play is not None:
        require_unseen(replace(play, game=play.game or record.game), planned_seeds(record), "dataset.record")


def with_metric(config: Config, dataset: ZarrGameplayDataset) -> Config:
    """The config with the metric that chooses the best checkpoint, also where the user's leaves it to the dataset.

    Raises:
        UserError: a score of buttons is to choose, and the dataset has none.
    """
    if config.evaluation.best_metric is None:
        # The loss is the one score that looks at buttons and at axes.
        metric = "loss" if dataset.axis_names else "macro_f1"
        config = replace(config, evaluation=replace(config.evaluation, best_metric=metric))
    stopping = config.training.early_stopping
    chosen = {"evaluation.best_metric": config.evaluation.best_metric}
    chosen |= {"training.early_stopping.metric": stopping.metric} if stopping is not None else {}
    for key, metric in chosen.items():
        if metric == "macro_f1" and not dataset.action_names:
            raise UserError(
                f"{key}=macro_f1 is a score of buttons, and {dataset.path} has axes alone: choose exact_match or loss"
            )
    return config


def _open_dataset(config: Config, console: Console) -> ZarrGameplayDataset:
    options = config.dataset
    dataset = open_configured(options)
    what = "all of it" if options.validate_episodes else "actions and state"
    with Progress(console=console, transient=True) as progress:
        bar = progress.add_task(f"reading {what}", total=len(dataset))
        dataset.load_labels(lambda frames: progress.update(bar, advance=frames))
    rate = f" at {dataset.fps:.4g}/s" if dataset.fps else ""
    axes = f"{len(dataset.axis_names)} axes, " if dataset.axis_names else ""
    console.print(
        f"dataset {dataset.path}: {len(dataset.episodes)} episodes, {len(dataset):,} frames{rate}, "
        f"{len(dataset.action_names)} actions, {axes}{len(dataset.state_names)} state values",
        soft_wrap=True,
        markup=False,
    )
    if dataset.skipped:
        note = "; ".join(f"{s.name}: {s.reason}" for s in dataset.skipped)
        note = f"skipped {len(dataset.skipped)} faulty episodes ({note})"
        console.print(note, style="yellow", soft_wrap=True, markup=False)
    return dataset
