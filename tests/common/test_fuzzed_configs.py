"""Configs that were damaged: loaded as written, or refused in one line."""

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from mutations import WEIRD, changed, damaged, require_one_line
from omegaconf import OmegaConf

from BC_training.common.config import PACKAGE, from_dict, load_config, save_config, to_dict
from BC_training.common.errors import UserError

CONFIGS = sorted(file for file in (PACKAGE / "configs").glob("*.yaml") if file.name != "suite.yaml")
KEYS = [
    *(f"dataset.{key}" for key in ("path", "actions", "frame_size", "split.train", "oversample", "state.ids")),
    *("dataset.record.noise", "model.name", "model.dropout", "training.num_epochs", "training.batch_size"),
    *("training.learning_rate", "training.resume", "training.augmentation.flip", "evaluation.threshold"),
    *("evaluation.thresholds", "evaluation.exclusive", "evaluation.temperature", "evaluation.rollout.seed"),
    *("logging.run_name", "logging.wandb.tags", "system.seed", "system.distributed.coordinator", "system"),
    *("nothing", "model.nothing", "a.b.c.d", "", "dataset..path", "dataset.split[0]"),
]
VALUES = st.one_of(
    WEIRD.map(lambda value: value if isinstance(value, str) else json.dumps(value)),
    st.text(max_size=12),
    st.sampled_from(
        ["${dataset.path}", "${nothing}", "${oc.env:HOME}", "{a: 1", "[1, 2", "'", "on", "0012", "12:30", "1e-3", "*a"]
    ),
)


def config_property(examples: int):
    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(st.data())
    def test(tmp_path_factory, data):
        file = tmp_path_factory.getbasetemp() / "fuzzed.yaml"
        content = data.draw(st.sampled_from(CONFIGS)).read_bytes()
        kind = data.draw(st.sampled_from(["values", "values", "bytes", "none"]))
        if kind == "values":
            raw = OmegaConf.to_container(OmegaConf.create(content.decode()))
            content = json.dumps(data.draw(changed(raw))).encode()
        elif kind == "bytes":
            content = data.draw(damaged(content))
        file.write_bytes(content)
        pairs = data.draw(st.lists(st.tuples(st.sampled_from(KEYS), VALUES), max_size=2))
        try:
            config = load_config(file, [f"{key}={value}" for key, value in pairs])
        except UserError as error:
            require_one_line(error)
            return
        assert from_dict(to_dict(config), "copy") == config
        save_config(config, saved := file.with_name("saved.yaml"))
        assert load_config(saved) == config

    return test


test_a_damaged_config_is_loaded_or_refused_in_one_line = config_property(12)
test_damaged_configs_by_the_thousand = pytest.mark.slow(config_property(4000))


NAMES = st.text(st.characters(blacklist_characters="/\\${}'\"#"), min_size=1, max_size=12).filter(str.isprintable)


@settings(max_examples=10)
@given(NAMES)
def test_a_run_is_called_what_the_override_says(name):
    assume(name.strip() == name and name not in (".", "..") and name.lower() not in ("null", "~", ""))
    config = load_config(Path("configs/pure_cnn_small.yaml"), [f"logging.run_name={name}"])
    assert config.logging.run_name == name
