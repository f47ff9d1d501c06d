"""What is played is what the policy would do, and the update sees the very same."""

import jax
import numpy as np
import pytest
import untrained

from BC_training.common.action import Action
from BC_training.common.axes import AxisBins
from BC_training.common.config import from_dict
from BC_training.common.preprocess import InputSpec, Window
from BC_training.common.settings.state import StateConfig
from BC_training.common.state import StateFeatures
from BC_training.finetuning.games import ParallelGames
from BC_training.finetuning.playing import Playing
from BC_training.finetuning.ppo import make_update
from BC_training.finetuning.setup import Setup
from BC_training.inference import Policy
from BC_training.training.progress import TrainingProgress
from BC_training.training.resume import Start

SIZE, GAMES, HORIZON, HEAT = (24, 32), 2, 32, 0.7
SMALL = {"conv_features": [4, 8], "conv_strides": [2, 2]}
CART, CART_STATE = "gym/CartPole-v1", ("cart_position", "cart_velocity", "pole_angle", "pole_angular_velocity")
CASES = {
    "pure_cnn": (SMALL | {"dense_features": [16]}, Window(history=3, frame_skip=2), "doom/basic?mouse=true"),
    "temporal_cnn": (
        SMALL | {"features": 16, "position_features": 4},
        Window(3, 2, action_history=2, every_frame=True),
        CART,
    ),
    "resnet_policy": (
        {"width": 4, "stage_blocks": [1, 1], "dense_features": 16, "position_features": 4},
        Window(2),
        CART,
    ),
    "state_cnn": (SMALL | {"dense_features": [16]}, Window(2, state=True, since_change=("pole_angle",)), CART),
}


def settings(name: str, model: dict, window: Window, folder, **changes) -> dict:
    of_dataset = {"path": "unused", "history": window.history, "frame_skip": window.frame_skip}
    of_dataset |= {"action_history": window.action_history}
    if window.state:
        of_dataset["state"] = {"standardized": list(CART_STATE[:2]), "since_change": list(window.since_change)}
    options = {"from_": str(folder / "clone"), "games": GAMES, "horizon": HORIZON, "steps": 1000}
    options |= {"minibatches": 2, "epochs": 1}
    return {
        "dataset": of_dataset,
        "model": {"name": name} | model,
        "finetune": options | changes,
        "evaluation": {"temperature": HEAT},
        "logging": {"run_name": "tuned", "log_dir": str(folder / "l")},
        "training": {"checkpoint_dir": str(folder / "c")},
    }


def make_setup(folder, name: str, **changes) -> Setup:
    """A fine-tuning of an untrained clone."""
    model, window, game = CASES[name]
    buttons, axes, names = ("left", "right"), (), CART_STATE
    if game != CART:
        buttons, axes, names = ("move_left", "move_right", "attack"), ("turn",), ()
    states = [("episode_0", np.random.default_rng(0).normal(size=(50, len(names))).astype(np.float32))]
    features = None
    if window.state:
        of_state = StateConfig(standardized=names[:2], since_change=window.since_change)
        features = StateFeatures.fit(of_state, names, states, "here")
    bins = AxisBins((5.0,), 7, 10.0) if axes else None
    inputs = InputSpec(buttons, names, SIZE, SIZE, 50.0, window, features, axes, bins)
    config = from_dict(settings(name, model, window, folder, game=game, **changes), "here")
    untrained.save_run(folder / "clone", config, inputs)
    return Setup.build(config)


@pytest.fixture(scope="module", params=CASES)
def played(request, tmp_path_factory):
    """A set-up, its state, what it played twice (the second time it has a past), and its update."""
    setup = make_setup(tmp_path_factory.mktemp(request.param), request.param)
    state = setup.initial_state(Start(None, TrainingProgress()))
    assert setup.options.game is not None
    options = {"recorded_size": SIZE, "model_size": SIZE, "processes": 1, "first_seed": 5, "reward": None}
    with ParallelGames([setup.options.game] * GAMES, **options) as games:
        playing, shown = Playing(setup, games, state), []
        for turn in range(2):
            playing.begin(state)
            for t in range(HORIZON):
                playing.step(turn * HORIZON + t)
            lead = playing.experience.lead
            shown.append({
                name: np.array(values)
                for name, values in {
                    "frames": playing.experience.frames[lead:-1],
                    "states": playing.experience.states[lead:-1],
                    "buttons": playing.buttons,
                    "bins": playing.axis_bins,
                    "ended": playing.ended,
                    "said": playing.log_probabilities,
                }.items()
            })  # fmt: skip
            if turn == 0:
                playing.end()
        update = make_update(setup.network, setup.optimizer, setup.options, only_value=False)
        yield setup, state, playing, {name: np.concatenate([one[name] for one in shown]) for name in shown[0]}, update


def test_the_games_are_played_by_what_the_policy_says_of_the_same_frames(played):
    setup, _, _, shown, _ = played
    bins = setup.clone.inputs.axis_bins
    for game in range(GAMES):
        policy = Policy.load(setup.clone.path)
        for t in range(2 * HORIZON):
            state = shown["states"][t, game] if setup.clone.inputs.window.state else None
            policy.act(shown["frames"][t, game], state)
            held, chosen = shown["buttons"][t, game], shown["bins"][t, game]
            odds = np.log(policy.last_probabilities.astype(np.float64)) - np.log1p(-policy.last_probabilities)
            p = 1 / (1 + np.exp(np.where(held, -odds, odds) / HEAT))
            wanted, amounts = np.log(p).sum(), np.zeros(0)
            if bins is not None:
                logits = policy.last_axis_logits.astype(np.float64) / HEAT
                logits -= np.log(np.exp(logits).sum(-1, keepdims=True))
                wanted += logits[np.arange(len(logits)), chosen].sum()
                amounts = bins.amounts[np.arange(len(logits)), chosen]
            assert shown["said"][t, game] == pytest.approx(wanted, abs=1e-4), (game, t)
            policy.override(Action.of(held, amounts))
            if shown["ended"][t, game]:
                policy.reset()
    if setup.options.game == CART:
        assert shown["ended"].sum() > 2


def test_the_update_sees_the_probabilities_that_were_played(played):
    """The ratio is 1 and the clone says the same, in every minibatch, before anything is learned."""
    setup, state, playing, _, update = played
    batches = list(playing.minibatches(state.opt_state["clone"], seed=3))
    assert len(batches) == setup.options.epochs * setup.options.minibatches
    for batch in batches:
        _, metrics = update(state, *batch)
        assert float(metrics.moved) == pytest.approx(0, abs=1e-6)
        assert float(metrics.kl) == pytest.approx(0, abs=1e-6)
        assert float(metrics.clipped) == 0


def test_only_the_value_head_learns_while_it_warms_up(played):
    setup, state, playing, _, _ = played
    warm_up = make_update(setup.network, setup.optimizer, setup.options, only_value=True)
    batch = next(iter(playing.minibatches(state.opt_state["clone"], seed=3)))
    after, _ = warm_up(state, *batch)
    same = jax.tree.map(lambda a, b: np.array_equal(a, b), state.params, after.params)
    assert all(jax.tree.leaves(same))
    heads = state.opt_state["value_head"], after.opt_state["value_head"]
    assert not np.array_equal(heads[0]["out"]["kernel"], heads[1]["out"]["kernel"])


def test_an_update_makes_what_went_well_more_probable(played):
    _, state, playing, _, update = played
    batch = next(iter(playing.minibatches(state.opt_state["clone"], seed=3)))
    _, before = update(state, *batch)
    for _ in range(10):
        state, after = update(state, *batch)
    assert float(after.policy_loss) < float(before.policy_loss)
    assert float(after.value_loss) < float(before.value_loss)
    assert float(after.kl) > 0
