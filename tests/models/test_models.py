import dataclasses
from functools import partial, wraps

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from BC_training.common.errors import UserError
from BC_training.common.preprocess import Window
from BC_training.common.settings import variants
from BC_training.models.pure_cnn import model as pure_cnn_model
from BC_training.training.train_state import abstract_model

DEFAULT = pure_cnn_model.Config("pure_cnn")


def test_every_config_is_frozen_and_begins_with_the_name():
    for name in variants.names():
        variant = variants.find(name)
        assert dataclasses.is_dataclass(variant.Config)
        assert variant.Config.__dataclass_params__.frozen
        assert dataclasses.fields(variant.Config)[0].name == "name"


def test_an_unknown_variant_is_named_with_the_nearest():
    with pytest.raises(UserError, match="unknown model 'pure_cn'; did you mean 'pure_cnn'") as caught:
        variants.find("pure_cn")
    assert "\n" not in str(caught.value)
    for name in ("layers", "", "../models/pure_cnn", "pure_cnn.model"):
        with pytest.raises(UserError, match="unknown model"):
            variants.find(name)


@pytest.mark.parametrize("part", ["Config", "create_model"])
def test_a_variant_that_lacks_a_part_is_refused(monkeypatch, part):
    monkeypatch.delattr(pure_cnn_model, part)
    with pytest.raises(UserError, match=f"has no {part}"):
        variants.find("pure_cnn")


@pytest.mark.parametrize("norm", [True, False])
@pytest.mark.parametrize("dense", [(512, 256), (32,), ()])
@pytest.mark.parametrize("buttons", [7, 13])
def test_the_parameter_count_is_that_of_the_layers(make_config, make_inputs, norm, dense, buttons):
    """Weights of each layer, and scale and bias of its batch norm or, without one, its own bias."""
    conv = DEFAULT.conv_features
    sizes = [9 * a * b + b + b * norm for a, b in zip((3, *conv), conv, strict=False)]
    wide = (conv[-1], *dense)
    sizes += [a * b + b + b * norm for a, b in zip(wide, dense, strict=False)]
    config = make_config(vars(DEFAULT) | {"batch_norm": norm, "dense_features": dense})
    count = abstract_model(config, make_inputs(buttons, (288, 512), (288, 512))).parameter_count
    assert count == sum(sizes) + wide[-1] * buttons + buttons


def shapes_inside(config, inputs) -> list[tuple[int, ...]]:
    """The output shape of every convolution and dense layer, in order."""
    seen = []

    def record(layer, method):
        @wraps(method)
        def call(self, x):
            y = method(self, x)
            seen.append(y.shape)
            return y

        return call

    with pytest.MonkeyPatch.context() as patch:
        for layer in (nnx.Conv, nnx.Linear):
            patch.setattr(layer, "__call__", record(layer, layer.__call__))
        frames = jax.ShapeDtypeStruct((2, 1, *inputs.frame_shape), jnp.float32)
        create = partial(pure_cnn_model.create_model, config, inputs)
        jax.eval_shape(lambda x: create(nnx.Rngs(0))({"frames": x}, train=False), frames)
    return seen


def test_strides_and_features_give_the_shapes_inside(make_inputs):
    inputs = make_inputs(7, (288, 512))
    assert shapes_inside(DEFAULT, inputs) == [
        (2, 144, 256, 32),
        (2, 72, 128, 64),
        (2, 36, 64, 128),
        (2, 36, 64, 256),
        (2, 512),
        (2, 256),
        (2, 7),
    ]
    config = dataclasses.replace(DEFAULT, conv_features=(4, 6), conv_strides=(1, 3), dense_features=(5,))
    assert shapes_inside(config, make_inputs(7, (24, 33))) == [(2, 24, 33, 4), (2, 8, 11, 6), (2, 5), (2, 7)]


def tiny(inputs, history: int = 1, dropout: float = 0.0):
    """A tiny PureCNN without batch norm."""
    inputs = dataclasses.replace(inputs, window=Window(history))
    config = pure_cnn_model.Config("pure_cnn", (4,), (4,), (64,), dropout=dropout, batch_norm=False)
    return pure_cnn_model.create_model(config, inputs, nnx.Rngs(0))


def test_dropout_follows_from_its_key_and_is_off_in_evaluation(make_inputs):
    frames = {"frames": jnp.asarray(np.random.default_rng(0).random((2, 1, 3, 8, 8)), jnp.float32)}
    model = tiny(make_inputs(3, (8, 8)), dropout=0.5)
    evaluated = model(frames, train=False)
    np.testing.assert_array_equal(model(frames, train=False), evaluated)
    first, second = (model(frames, train=True, rngs=nnx.Rngs(dropout=seed)) for seed in (1, 2))
    assert not np.allclose(first, second)
    assert not np.allclose(first, evaluated)
    np.testing.assert_array_equal(model(frames, train=True, rngs=nnx.Rngs(dropout=1)), first)
    without = tiny(make_inputs(3, (8, 8)))
    np.testing.assert_array_equal(without(frames, train=True), without(frames, train=False))


def test_every_frame_of_the_history_matters(make_inputs):
    model = tiny(make_inputs(3, (8, 8)), history=3)
    frames = np.random.default_rng(0).random((1, 3, 3, 8, 8), np.float32)
    logits = model({"frames": jnp.asarray(frames)}, train=False)
    for t in range(3):
        changed = frames.copy()
        changed[:, t] = 0
        assert not np.allclose(model({"frames": jnp.asarray(changed)}, train=False), logits)
