"""What a policy sees and presses, as its config says and its training split shows."""

from collections.abc import Sequence

import numpy as np

from BC_training.common.axes import AxisBins
from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError, unknown
from BC_training.common.preprocess import InputSpec
from BC_training.common.schema import Config
from BC_training.common.settings.state import StateConfig
from BC_training.common.state import StateFeatures


def fit_inputs(config: Config, dataset: ZarrGameplayDataset, episodes: Sequence[int]) -> InputSpec:
    """The inputs of the config's model, with bins and scales fitted to ``episodes``, those that are trained on.

    Raises a UserError where the dataset lacks a state that is asked for.
    """
    state, bins = _fit_state(config, dataset, episodes), None
    if dataset.axis_names:
        axes = np.concatenate([dataset.axes(e)[dataset.episodes[e].is_labelled] for e in episodes])
        bins = AxisBins.fit(axes, config.dataset.axis_bins, config.dataset.axis_mu)
    return InputSpec(
        dataset.action_names,
        dataset.state_names,
        dataset.frame_size,
        config.dataset.frame_size or dataset.frame_size,
        dataset.fps,
        config.window(),
        state,
        dataset.axis_names,
        bins,
        _fit_auxiliary(config, dataset, episodes),
    )


def _fit_state(config: Config, dataset: ZarrGameplayDataset, episodes: Sequence[int]) -> StateFeatures | None:
    """How the state is encoded for the model, fitted to the training episodes; None if the model sees no state."""
    if not config.uses_state:
        return None
    if not dataset.state_names:
        raise UserError(
            f"{dataset.path} has no state, but model {config.model.name} sees it: record the state, set "
            "model.use_state=false, or choose another model"
        )
    assert config.dataset.state is not None
    states = ((dataset.episodes[e].name, dataset.state(e)) for e in episodes)
    return StateFeatures.fit(config.dataset.state, dataset.state_names, states, dataset.path)


def _fit_auxiliary(config: Config, dataset: ZarrGameplayDataset, episodes: Sequence[int]) -> StateFeatures | None:
    """How the state that the model learns to predict is scaled, fitted likewise; None if it predicts none."""
    names = config.training.auxiliary_state
    for name in names:
        if name not in dataset.state_names:
            raise unknown("state attribute", name, dataset.state_names, "training.auxiliary_state names it")
    if not names:
        return None
    states = ((dataset.episodes[e].name, dataset.state(e)) for e in episodes)
    return StateFeatures.fit(StateConfig(standardized=names), dataset.state_names, states, dataset.path)
