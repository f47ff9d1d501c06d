import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from BC_training.common.errors import UserError
from BC_training.common.preprocess import InputSpec, Window
from BC_training.common.schema import Config as WholeConfig
from BC_training.common.schema import DatasetConfig
from BC_training.common.settings.state import StateConfig
from BC_training.common.state import StateFeatures
from BC_training.models.state_cnn.model import Config, create_model, glance
from BC_training.training.train_state import abstract_model

STATE = StateConfig(categories=("weapon", "enemy"), standardized=("x", "y"))
FEATURES = StateFeatures(STATE, ((1.0, 5.0), (2.0, 3.0, 4.0)), (0.0, 0.0), (1.0, 1.0))
INPUTS = InputSpec(("a", "b", "c"), ("x", "y", "weapon", "enemy"), (16, 24), (16, 24), 17.0, Window(2), FEATURES)
TINY = Config("state_cnn", True, (4, 6), (2, 2), 2, (8,), 3, (5,), (16,), 0.0, batch_norm=False)


def observed(batch: int = 2, seed: int = 0) -> dict[str, jax.Array]:
    rng = np.random.default_rng(seed)
    return {
        "frames": jnp.asarray(rng.random((batch, 2, 3, 16, 24)), jnp.float32),
        "state": jnp.asarray(rng.normal(size=(batch, 2, 2)), jnp.float32),
        "ids": jnp.asarray(rng.integers(1, 3, (batch, 2, 2)), jnp.int32),
    }


@pytest.fixture(scope="module")
def model():
    return jax.jit(partial(create_model(TINY, INPUTS, nnx.Rngs(0)), train=False))


@pytest.mark.parametrize("name", ["frames", "state", "ids"])
@pytest.mark.parametrize("t", [0, 1])
def test_every_frame_state_and_id_of_the_history_matters(model, name, t):
    seen = observed()
    for i in range(seen[name].shape[2]):
        changed = seen | {name: seen[name].at[:, t, i].set(0)}
        assert not np.allclose(model(changed), model(seen))


def test_an_unknown_id_adds_nothing():
    """The values of its row make no difference, and training does not change them."""
    net = create_model(TINY, INPUTS, nnx.Rngs(0))
    seen = observed() | {"ids": jnp.zeros((2, 2, 2), jnp.int32)}
    graphdef, params = nnx.split(net, nnx.Param)

    def loss(params):
        return jnp.sum(nnx.merge(graphdef, params)(seen, train=False) ** 2)

    for table in jax.tree.leaves(jax.jit(jax.grad(loss))(params)["state"]["tables"]):
        assert not np.asarray(table).any()


def test_a_model_without_use_state_ignores_the_state():
    config = dataclasses.replace(TINY, use_state=False)
    assert create_model(config, dataclasses.replace(INPUTS, state=None), nnx.Rngs(0)).state is None
    twin = create_model(config, INPUTS, nnx.Rngs(0))
    seen = observed()
    assert twin({"frames": seen["frames"]}, train=False).shape == (2, 3)
    np.testing.assert_array_equal(twin(seen, train=False), twin({"frames": seen["frames"]}, train=False))


@pytest.mark.parametrize("use_state", [True, False])
def test_the_parameter_count_is_that_of_the_layers(use_state):
    """3 x 3 convolutions over 2 frames, a 4 x 6 grid of 2 channels, tables of 3 and 4 rows, dense layers."""
    config = dataclasses.replace(TINY, use_state=use_state)
    convs = (9 * 6 * 4 + 4) + (9 * 4 * 6 + 6) + (6 * 2 + 2)
    vision = 4 * 6 * 2 * 8 + 8
    state = (3 + 4) * 3 + 2 * (2 + 2 * 3) * 5 + 5
    head = (8 + 5 * use_state) * 16 + 16 + 16 * 3 + 3
    data = DatasetConfig("x", state=STATE)
    count = abstract_model(WholeConfig(data, config), INPUTS).parameter_count
    assert count == convs + vision + state * use_state + head


@pytest.mark.parametrize("size", [(17, 23), (8, 8), (72, 128)])
def test_frames_may_have_any_size(size):
    inputs = dataclasses.replace(INPUTS, frame_size=size)
    frames = jax.ShapeDtypeStruct((2, 2, 3, *size), jnp.float32)
    shapes = observed() | {"frames": frames}
    assert jax.eval_shape(lambda o: create_model(TINY, inputs, nnx.Rngs(0))(o, train=False), shapes).shape == (2, 3)


def test_dense_blocks_and_categories_can_be_left_out():
    config = dataclasses.replace(TINY, vision_features=(), state_features=(), dense_features=())
    features = StateFeatures(StateConfig(standardized=("x", "y")), (), (0.0, 0.0), (1.0, 1.0))
    net = create_model(config, dataclasses.replace(INPUTS, state=features), nnx.Rngs(0))
    assert net(observed() | {"ids": jnp.zeros((2, 2, 0), jnp.int32)}, train=False).shape == (2, 3)


def test_a_missing_state_is_refused():
    with pytest.raises(UserError, match=r"dataset\.state section, or set model\.use_state=false"):
        create_model(TINY, dataclasses.replace(INPUTS, state=None), nnx.Rngs(0))


def test_a_state_that_modulates_scales_and_shifts_every_place_alike():
    config = dataclasses.replace(TINY, modulate=True)
    net, seen = create_model(config, INPUTS, nnx.Rngs(0)), observed()
    assert net.modulation is not None
    assert net.modulation.kernel.shape == (5, 2 * 6)
    # Kernels of 0 leave the biases: a scale of 1 - 1 and a shift of 1 make all places, and all frames, the same.
    net.modulation.kernel[...] *= 0
    net.modulation.bias[...] = jnp.array([-1.0] * 6 + [1.0] * 6)
    other = seen | {"frames": 1 - seen["frames"]}
    np.testing.assert_allclose(net(seen, train=False), net(other, train=False), atol=1e-6)
    # With a scale of 1 and a shift of 0 it is the twin, whose last convolution ends in a ReLU, too.
    net.modulation.bias[...] *= 0
    twin = create_model(TINY, INPUTS, nnx.Rngs(0))
    given = {path: value for path, value in nnx.to_flat_state(nnx.state(net)) if path[0] != "modulation"}
    nnx.update(twin, nnx.from_flat_state(given))
    np.testing.assert_allclose(net(seen, train=False), twin(seen, train=False), atol=1e-6)


def test_without_the_state_nothing_modulates():
    with pytest.raises(UserError, match=r"model\.modulate"):
        dataclasses.replace(TINY, use_state=False, modulate=True)


def test_a_glance_tells_where_a_thing_is_and_what_is_there_wherever_that_is():
    channels, attention = np.zeros((1, 5, 9, 3), np.float32), np.zeros((1, 5, 9, 2), np.float32)
    channels[0, 1, 6], channels[0, 4, 0] = (0.3, 0.7, 0.0), (5.0, 0.0, 2.0)
    attention[0, 1, 6, 0] = attention[0, 4, 0, 1] = 50  # each head looks at one of the two
    first, second = glance(jnp.asarray(channels), jnp.asarray(attention)).reshape(2, 5)
    np.testing.assert_allclose(first, (0.3, 0.7, 0.0, -0.5, 0.5), atol=1e-6)
    np.testing.assert_allclose(second, (5.0, 0.0, 2.0, 1.0, -1.0), atol=1e-6)
    moved = glance(*(jnp.roll(jnp.asarray(x), -2, axis=2) for x in (channels, attention))).reshape(2, 5)[0]
    np.testing.assert_allclose(moved, (0.3, 0.7, 0.0, -0.5, 0.0), atol=1e-6)


def test_glances_take_the_place_of_the_grid():
    config = dataclasses.replace(TINY, glances=3, use_state=False)
    count = abstract_model(WholeConfig(DatasetConfig("x"), config), INPUTS).parameter_count
    convs = (9 * 6 * 4 + 4) + (9 * 4 * 6 + 6) + (6 * 3 + 3)
    assert count == convs + (3 * (6 + 2) * 8 + 8) + (8 * 16 + 16) + (16 * 3 + 3)
