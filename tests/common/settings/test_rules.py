"""What a change of each setting means."""

import dataclasses
from dataclasses import dataclass

import pytest

from BC_training.common.config import load_config, to_dict
from BC_training.common.schema import Config
from BC_training.common.settings.rules import Resume, Rules, keys_that_change, rules_of, setting
from BC_training.training.resume import resume_rule

# Written down once more, so that no rule changes by accident.
FREE = {
    *(f"dataset.{key}" for key in ("path", "record", "validate_episodes", "prefetch", "cache", "cache_dir")),
    *("dataset.cache_limit", "training.checkpoint_dir", "training.keep_last", "training.save_every_minutes"),
    *("training.resume", "training.resume_changed", "training.steps_per_dispatch", "training.profile_steps"),
    *("evaluation.batch_size", "evaluation.rollout", "logging"),
    *(f"system.{key}" for key in ("device", "workers", "distributed", "deterministic")),
}
CHOOSING = {f"evaluation.rollout.{key}" for key in ("game", "episodes", "every_n_epochs", "validation_seed")}
NEVER = {
    "training.batch_size",
    "training.gradient_accumulation",
    "training.ema_decay",
    "training.weight_by_return",
    "training.init_from",
}


def flat(tree, prefix=""):
    for key, value in tree.items():
        yield from flat(value, f"{prefix}{key}.") if isinstance(value, dict) and value else [f"{prefix}{key}"]


def is_under(key, places):
    return any(key == place or key.startswith(f"{place}.") for place in places)


@pytest.mark.parametrize("chosen_by_play", [False, True])
@pytest.mark.parametrize("name", ["pure_cnn", "state_cnn", "vit_policy"])
def test_every_setting_may_be_changed_on_resume_as_listed(name, chosen_by_play):
    sections = ["training.early_stopping={}", "training.augmentation={}", "evaluation.thresholds={attack: 0.4}"]
    for key in flat(to_dict(load_config(f"configs/{name}.yaml", sections))):
        is_free = is_under(key, FREE) and not (chosen_by_play and is_under(key, CHOOSING))
        is_never = not key.startswith(("training.", "evaluation.")) or key in NEVER
        expected = Resume.FREE if is_free else Resume.NEVER if is_never else Resume.ON_REQUEST
        assert resume_rule(key, chosen_by_play) == expected, key


def test_the_settings_that_change_a_score_are_those_that_it_is_computed_with():
    decoding = {f"evaluation.{key}" for key in ("threshold", "thresholds", "hysteresis", "exclusive", "axes")}
    play = {f"evaluation.rollout.{key}" for key in ("game", "episodes", "validation_seed")}
    losses = ("loss", "focal_gamma", "label_smoothing", "class_weights", "max_class_weight", "axis_loss_weight")
    assert set(keys_that_change(Config, "loss")) == {f"training.{key}" for key in losses}
    assert set(keys_that_change(Config, "buttons")) == decoding
    assert set(keys_that_change(Config, "rollout")) == {*decoding, *play, "evaluation.temperature"}


def test_a_setting_without_rules_follows_its_section_and_a_new_section_is_another_training():
    @dataclass(frozen=True)
    class Inner:
        silent: int = 1
        strict: int = setting(2, resume=Resume.NEVER, scores=("loss",))

    outer = dataclasses.make_dataclass("Outer", [("inner", Inner, setting(factory=Inner, resume=Resume.FREE))])
    assert rules_of(outer, "inner.silent") == Rules(Resume.FREE)
    assert rules_of(outer, "inner.strict") == Rules(Resume.NEVER, scores=("loss",))
    assert rules_of(outer, "other.key") == Rules(Resume.NEVER)
