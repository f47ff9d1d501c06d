"""A training's dataset is recorded first where it is missing and the config says how."""

import contextlib
from typing import Any

import numpy as np
from rich.console import Console

from BC_training.common.axes import AxisBins
from BC_training.common.config import Config
from BC_training.common.errors import UserError, unknown
from BC_training.common.mirror import MirrorTable
from BC_training.common.preprocess import InputSpec
from BC_training.common.state import StateFeatures
from BC_training.common.storage.store import absent, is_remote
from BC_training.data.augment import make_augment
from BC_training.games import make_game
from BC_training.play.record import record_missing
from BC_training.runtime.workers import closing_on_sigterm
from BC_training.training.train_state import abstract_model


def record_missing_dataset(config: Config, console: Console) -> None:
    """Records the episodes of ``dataset.record`` that are not at ``dataset.path`` yet.

    Raises a UserError where there is nothing and nothing to record, or where the config does not fit the game.
    """
    options = config.dataset
    missing = absent(options.paths)
    if options.record is not None:
        path = options.paths[0]  # the only one
        if missing:
            _require_buildable(config)
        if not is_remote(path):
            record_missing(path, options.record, config.system.workers, console)
    elif missing:
        raise UserError(
            f"no dataset at {missing[0]}: set dataset.path, record one with "
            f"'record --out {missing[0]}', or give the config a dataset.record section"
        )


def _require_buildable(config: Config) -> None:
    """Raises a UserError where the config does not fit the game."""
    options, recording = config.dataset, config.dataset.record
    assert recording is not None
    with closing_on_sigterm(), contextlib.closing(make_game(recording.game, frame_size=recording.frame_size)) as env:
        game: Any = env.unwrapped
        state = None
        if config.uses_state:
            assert options.state is not None
            any_values = np.zeros((1, len(game.state_names)), np.float32)
            state = StateFeatures.fit(options.state, game.state_names, [("", any_values)], recording.game)
        size = options.frame_size or game.frame_size
        names = game.buttons if options.actions is None else options.actions
        axes = game.axes if options.axes is None else options.axes
        for what, used, known in (("action", names, game.buttons), ("axis", axes, game.axes)):
            for name in used:
                if name not in known:
                    raise unknown(what, name, known, "in dataset.actions" if what == "action" else "in dataset.axes")
        for name in options.oversample.actions if options.oversample else ():
            if name not in names:
                raise unknown("action", name, names, "in dataset.oversample.actions")
        config.evaluation.decoding(names)
        inputs = InputSpec(
            names,
            game.state_names,
            game.frame_size,
            size,
            game.fps,
            config.window(),
            state,
            axes,
            AxisBins.fit(np.zeros((1, len(axes)), np.float32), options.axis_bins, options.axis_mu) if axes else None,
        )
        mirror = MirrorTable(None, game.buttons, game.state_names, recording.game, game.axes)
        make_augment(config.training.augmentation, inputs, mirror)
        abstract_model(config, inputs)
