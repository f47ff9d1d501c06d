"""What a fine-tuning is made of: the clone that it begins at, its settings, and how its checkpoints begin."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from BC_training.common.config import from_dict, read_settings, to_dict
from BC_training.common.decode import Decoding
from BC_training.common.errors import UserError, require
from BC_training.common.preprocess import InputSpec
from BC_training.common.schema import Config
from BC_training.common.settings.evaluation import RolloutConfig
from BC_training.common.settings.finetune import FinetuneConfig
from BC_training.common.settings.yaml_values import settle
from BC_training.common.storage.column_names import names_fault
from BC_training.finetuning.live import LiveOptions, open_game
from BC_training.finetuning.network import Network
from BC_training.finetuning.ppo import begin, make_optimizer
from BC_training.finetuning.rewards import Reward
from BC_training.games import GameSpec
from BC_training.games.fit import require_fit
from BC_training.training import checkpoint
from BC_training.training.checkpoint import Checkpoint, CheckpointMeta, Delivery, read_state
from BC_training.training.resume import Start
from BC_training.training.train_state import TrainState, Tree, split_model

# What a clone was trained with and a fine-tuning does not take over.
_OF_ITS_RUN = (
    "checkpoint_dir",
    "keep_last",
    "save_every_minutes",
    "resume",
    "resume_changed",
    "profile_steps",
    "init_from",
)


def load_config(path: str | Path, overrides: Sequence[str]) -> Config:
    """The clone's config with the ``finetune`` section, and whatever else the file and ``overrides`` set.

    The run's folders, logs and machine are not the clone's.

    Raises a UserError as ``common.config.load_config`` does, and where ``finetune.from`` is no checkpoint.
    """
    raw, file = read_settings(path, overrides)
    section = dict(raw.get("finetune") or {})
    if "from" in section:
        section["from_"] = section.pop("from")
    if section.get("from_") is None:
        raise UserError(f"config {file}: finetune.from=CHECKPOINT is missing: the clone to begin at")
    saved = checkpoint.read(str(settle(section["from_"], str)))
    base: dict[str, Any] = to_dict(saved.config) | {"finetune": {}}
    base["training"] = {key: value for key, value in base["training"].items() if key not in _OF_ITS_RUN}
    base["evaluation"]["best_metric"] = None
    if base["evaluation"]["rollout"] is not None:
        base["evaluation"]["rollout"]["every_n_epochs"] = None  # an epoch is no iteration
    del base["logging"], base["system"]
    merged = _merge(base, raw | {"finetune": section})
    merged["logging"] = {"run_name": file.stem} | (merged.get("logging") or {})
    config = from_dict(merged, str(file))
    if config.training.init_from is not None:
        raise UserError(f"config {file}: training.init_from: a fine-tuning begins at finetune.from: leave it out")
    for key in ("model", "dataset"):
        if (key == "model" or key in raw) and getattr(config, key) != getattr(saved.config, key):
            raise UserError(f"config {file}: section '{key}' is the clone's, {saved.path}: leave it out")
    return _with_play(config, (raw.get("evaluation") or {}).keys())


def _merge(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _with_play(config: Config, given: Any) -> Config:
    """The config with the game that is played and scored, and, unless ``given``, the decoding that PPO plays by."""
    options = config.finetune
    assert options is not None
    rollout = config.evaluation.rollout
    game = options.game or (rollout and rollout.game)
    if game is None:
        raise UserError("config: finetune.game=SPEC is missing, and the clone was scored in no game")
    is_window = GameSpec.parse(game).kind == "window"
    if is_window and options.game is None:  # nobody plays there but who is told to
        raise UserError(f"config: the clone's game is a window of the user's: finetune.game={game} plays there")
    if is_window and rollout is not None and "rollout" in given:
        raise UserError(
            f"config: evaluation.rollout: {game} is not played for a score: leave it out, what the policy gets while "
            "it learns is its score"
        )
    if rollout is None or (options.game is not None and rollout.game != game):
        rollout = replace(rollout or RolloutConfig(), game=game, reference_means=None)
    chosen = {"temperature": 1.0, "hysteresis": 0.0, "exclusive": ()}
    chosen = {key: value for key, value in chosen.items() if key not in given}
    if is_window:
        rollout = None
    # Iterations take the place of epochs, and what is scored in play that of validation; else the last is the best.
    metric = "loss" if rollout is None or rollout.every_n_epochs is None else "rollout"
    evaluation = replace(config.evaluation, rollout=rollout, every_n_epochs=1, best_metric=metric, **chosen)
    training = replace(config.training, num_epochs=options.iterations, early_stopping=None)
    return replace(config, evaluation=evaluation, training=training, finetune=replace(options, game=game))


@dataclass(frozen=True, eq=False)
class Setup:
    """What a fine-tuning needs and does not change."""

    config: Config
    options: FinetuneConfig
    clone: Checkpoint
    network: Network
    optimizer: optax.GradientTransformation
    decoding: Decoding
    live: LiveOptions | None  # of games in windows
    _policy: tuple[Tree, Tree, Tree]  # where it begins: parameters, batch statistics, the value head

    @classmethod
    def build(cls, config: Config) -> "Setup":
        """Reads the clone and starts its game once; raises a UserError where they do not fit."""
        options = config.finetune
        assert options is not None
        assert options.game is not None
        clone = checkpoint.read(options.from_)
        live = _live_options(options, clone.inputs)
        if options.reward is not None and live is None:  # a window has its own
            Reward(options.reward)
        for game in (options.game, *(stage.game for stage in options.curriculum)):
            with closing(open_game(game, clone.inputs.recorded_size, live)) as env:
                require_fit(str(clone.path), clone.inputs, env)
        if clone.inputs.window.every_frame and options.games % options.minibatches:
            rule = f"a number that divides finetune.games={options.games}: {config.model.name} learns from whole games"
            require(False, "finetune.minibatches", options.minibatches, rule)
        model = split_model(config, clone.inputs) if options.from_nothing else checkpoint.read_model(clone)
        heat = config.evaluation.temperature or 1.0  # it learns by drawing, also where it does not play so afterwards
        network, value = Network.build(model, options.value_layers, config.system.seed, heat)
        decoding = config.evaluation.decoding(clone.inputs.action_names)
        start = _shy(model.params) if options.from_nothing else model.params, model.batch_stats, value
        return cls(config, options, clone, network, make_optimizer(options), decoding, live, start)

    def initial_state(self, start: Start) -> TrainState:
        """The state read from the run's own checkpoint, or made of the clone."""
        state = begin(*self._policy, self.optimizer, self.options.kl)
        if start.step_folder is not None:
            state = jax.tree.map(jnp.asarray, read_state(start.step_folder, state))
        return state

    def meta(self, start: Start) -> CheckpointMeta:
        """What each of the run's checkpoints holds beside its arrays, at the start."""
        clone, progress = self.clone, start.progress
        return CheckpointMeta(
            step=progress.step,
            epoch=progress.epochs,
            config=self.config,
            inputs=clone.inputs,
            split=clone.split,
            seeds=clone.seeds,
            majority=clone.majority,
            metrics={},
            fingerprint=clone.fingerprint,
            progress=progress,
            delivery=Delivery(jax.default_backend(), "games", self.options.games),
        )

    def describe(self, device: str) -> str:
        options, model = self.options, self.network.model
        begins = "from nothing" if options.from_nothing else f"from {self.clone.path}"
        return (
            f"{self.config.model.name}: {model.parameter_count:,} parameters on {device}, {begins}; {options.games} "
            f"games of {options.game}, {options.iterations} times {options.horizon} steps of each"
            + ("; it plays while the window has the focus" if self.live else "")
        )


def _live_options(options: FinetuneConfig, inputs: InputSpec) -> LiveOptions | None:
    """What windows need to be learned in; None where there are none."""
    if options.state is None:
        return None
    names = options.state_names or inputs.state_names
    if not names:
        raise UserError("finetune.state_names=[NAME, ...] is missing: the clone's recordings have no state")
    if fault := names_fault({"keys": ["any"], "attributes": [*names]}):
        raise UserError(f"finetune.state_names: {fault}")
    assert options.reward is not None
    return LiveOptions(inputs.action_names, inputs.axis_names, options.state, names, options.reward, options.restart)


def _shy(policy: Tree) -> Tree:
    """Drawn parameters with a hundredth of the last layer's weights: at first each button is pressed half the time."""
    head = policy["head"]
    return policy | {"head": head | {"kernel": head["kernel"] / 100}}


def require_one_process() -> None:
    """Raises a UserError where several processes were started to train together."""
    if jax.process_count() > 1:
        raise UserError("finetune runs in one process: start it without a launcher, system.distributed=null")
