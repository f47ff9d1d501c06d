import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from BC_training.common import variants
from BC_training.common.errors import UserError
from BC_training.common.preprocess import Window
from BC_training.models.pure_cnn import model as pure_cnn_model
from BC_training.training.train_state import abstract_model

DEFAULT = pure_cnn_model.Config("pure_cnn")


@pytest.fixture
def count_parameters(make_config, make_inputs):
    """Counts the parameters of PureCNN with ``fields`` changed from its defaults, on 288x512 frames."""

    def count(actions: int = 7, **fields) -> int:
        config = make_config({f.name: getattr(DEFAULT, f.name) for f in dataclasses.fields(DEFAULT)} | fields)
        return abstract_model(config, make_inputs(actions, (288, 512), (288, 512))).parameter_count

    return count


def outputs(config, inputs, batch: int, train: bool) -> jax.ShapeDtypeStruct:
    """Shape and dtype of the logits; computes nothing, and allows no silent promotion of dtypes."""

    def run(frames):
        model = pure_cnn_model.create_model(config, inputs, nnx.Rngs(0))
        return model({"frames": frames}, train=train, rngs=nnx.Rngs(dropout=1))

    with jax.numpy_dtype_promotion("strict"):
        return jax.eval_shape(
            run, jax.ShapeDtypeStruct((batch, inputs.window.history, *inputs.frame_shape), jnp.float32)
        )


# --- finding a variant ---------------------------------------------------------------------


def test_the_variants_are_the_folders_in_order():
    assert "pure_cnn" in variants.names()
    assert variants.names() == sorted(variants.names())


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


# --- PureCNN -------------------------------------------------------------------------------


def test_the_parameter_count_is_that_of_the_layers(count_parameters):
    """Weights of each layer, and scale and bias of its batch norm or, without one, its own bias."""

    def expected(conv, dense, norm, actions=7):
        sizes = [9 * a * b + b + b * norm for a, b in zip((3, *conv), conv, strict=False)]
        wide = (conv[-1], *dense)
        sizes += [a * b + b + b * norm for a, b in zip(wide, dense, strict=False)]
        return sum(sizes) + wide[-1] * actions + actions

    assert count_parameters() == expected((32, 64, 128, 256), (512, 256), True) == 654_375
    assert count_parameters(batch_norm=False) == expected((32, 64, 128, 256), (512, 256), False)
    assert count_parameters(dense_features=()) == expected((32, 64, 128, 256), (), True)
    small = count_parameters(conv_features=(8, 16), conv_strides=(2, 1), dense_features=(32,))
    assert small == expected((8, 16), (32,), True)
    assert count_parameters(actions=13) == expected((32, 64, 128, 256), (512, 256), True, 13)


def shapes_inside(config, inputs) -> list[tuple[int, ...]]:
    """The output shape of every convolution and dense layer, in order."""
    seen = []

    def record(layer, method):
        @functools.wraps(method)
        def call(self, x):
            y = method(self, x)
            seen.append(y.shape)
            return y

        return call

    with pytest.MonkeyPatch.context() as patch:
        for layer in (nnx.Conv, nnx.Linear):
            patch.setattr(layer, "__call__", record(layer, layer.__call__))
        outputs(config, inputs, 2, train=False)
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


@pytest.fixture
def tiny(make_inputs):
    """A tiny PureCNN without batch norm, with ``fields`` of its configuration changed."""

    def make(**fields):
        shape = {"conv_features": (4,), "conv_strides": (4,), "dense_features": (64,), "batch_norm": False}
        config = pure_cnn_model.Config(**({"name": "pure_cnn"} | shape | fields))
        return pure_cnn_model.create_model(config, make_inputs(3, (8, 8)), nnx.Rngs(0))

    return make


def test_dropout_follows_from_its_key_and_is_off_in_evaluation(tiny):
    frames = {"frames": jnp.asarray(np.random.default_rng(0).random((2, 1, 3, 8, 8)), jnp.float32)}
    model = tiny(dropout=0.5)
    evaluated = model(frames, train=False)
    np.testing.assert_array_equal(model(frames, train=False), evaluated)
    first, second = (model(frames, train=True, rngs=nnx.Rngs(dropout=seed)) for seed in (1, 2))
    assert not np.allclose(first, second)
    assert not np.allclose(first, evaluated)
    np.testing.assert_array_equal(model(frames, train=True, rngs=nnx.Rngs(dropout=1)), first)

    without = tiny(dropout=0.0)
    np.testing.assert_array_equal(without(frames, train=True), without(frames, train=False))


def test_global_average_pooling_ignores_where_but_not_how_much(tiny):
    """What makes PureCNN the floor: a feature at another place, away from the border, gives the same logits."""
    model = tiny(conv_strides=(1,))
    frames = np.zeros((3, 3, 8, 8), np.float32)
    frames[0, :, 2, 2] = frames[1, :, 5, 5] = 1.0
    frames[2] = frames[0] + frames[1]
    here, there, both = model({"frames": jnp.asarray(frames)[:, None]}, train=False)
    np.testing.assert_allclose(here, there, rtol=1e-5)
    assert not np.allclose(here, both)


def test_red_and_blue_frames_give_different_logits(tiny):
    model = tiny()
    frames = np.zeros((2, 3, 8, 8), np.float32)
    frames[0, 0] = frames[1, 2] = 1.0
    logits = model({"frames": jnp.asarray(frames)[:, None]}, train=False)
    assert not np.allclose(logits[0], logits[1])


def test_every_frame_of_the_history_matters(make_inputs):
    inputs = dataclasses.replace(make_inputs(3, (8, 8)), window=Window(history=3))
    config = pure_cnn_model.Config("pure_cnn", (4,), (4,), (64,), batch_norm=False)
    model = pure_cnn_model.create_model(config, inputs, nnx.Rngs(0))
    frames = np.random.default_rng(0).random((1, 3, 3, 8, 8), np.float32)
    logits = model({"frames": jnp.asarray(frames)}, train=False)
    for t in range(3):
        changed = frames.copy()
        changed[:, t] = 0
        assert not np.allclose(model({"frames": jnp.asarray(changed)}, train=False), logits)
