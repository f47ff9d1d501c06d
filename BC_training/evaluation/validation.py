"""Scores a training's state on the validation split."""

import jax
import numpy as np

from BC_training.common import metrics
from BC_training.common.decoder import amounts
from BC_training.data.loader import Tier
from BC_training.data.order import batches_in_order
from BC_training.runtime.interruption import Decider, Decision
from BC_training.training.setup import Setup
from BC_training.training.train_state import TrainState, eval_params


def validate(setup: Setup, state: TrainState, tier: Tier, decider: Decider) -> metrics.Report | None:
    """``metrics.report`` of ``state`` and its "loss"; None where the training is to stop before that is done.

    ``tier`` delivers the validation split's samples.
    """
    params, batch_stats = eval_params(state)
    count, logits = len(setup.val_samples), []
    for batch in tier.batches(batches_in_order(count, setup.config.evaluation.batch_size, tier.mesh.size)):
        if decider.decide() == Decision.STOP:
            return None
        logits.append(np.asarray(setup.predict(params, batch_stats, batch)))
    logits, inputs, samples = np.concatenate(logits)[:count], setup.inputs, setup.val_samples
    of_buttons, of_axes = inputs.split_logits(logits)
    recorded, recorded_axes = samples.recorded
    axes = metrics.recorded_axes(inputs.axis_names, inputs.axis_bins, recorded_axes, inputs.window.action_shift)
    moved = None if inputs.axis_bins is None else amounts(of_axes, inputs.axis_bins, setup.decoding.axes)
    report = metrics.report(
        recorded,
        np.asarray(jax.nn.sigmoid(of_buttons)),
        setup.majority,
        inputs.action_names,
        setup.decoding,
        inputs.window.action_shift,
        axes,
        moved,
        samples.known,
    )
    return report | {"loss": float(setup.loss(logits, samples.targets, axes=samples.axis_targets, known=samples.known))}
