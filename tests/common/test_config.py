import dataclasses
import json
import textwrap
from pathlib import Path

import pytest

from BC_training.common.config import PACKAGE, from_dict, load_config, save_config, to_dict
from BC_training.common.errors import UserError
from BC_training.common.schema import Config
from BC_training.games.doom.game import STATE_NAMES

MINIMAL = "dataset:\n  path: data/x.zarr\n"
ELDEN_RING = (
    *("HeroHp", "HeroMaxHp", "HeroSp", "HeroMaxSp", "HeroFp", "HeroMaxFp"),
    *("HeroGlobalPosX", "HeroGlobalPosY", "HeroGlobalPosZ", "HeroAngle", "HeroAnimId"),
    *("NpcHp", "NpcMaxHp", "NpcId", "NpcGlobalPosX", "NpcGlobalPosY", "NpcGlobalPosZ"),
    *("NpcGlobalPosAngle", "NpcAnimId"),
)


@pytest.fixture
def write(tmp_path: Path):
    """Writes a config file and returns its path."""

    def write(text: str = MINIMAL, name: str = "pure_cnn.yaml") -> Path:
        file = tmp_path / name
        file.write_text(textwrap.dedent(text))
        return file

    return write


def error_of(*args, **kwargs) -> str:
    """The message of the UserError that loading raises; it must be one line."""
    with pytest.raises(UserError) as caught:
        load_config(*args, **kwargs)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


def test_model_section_is_typed_by_the_variant_it_names(write):
    config = load_config(
        write("dataset: {path: x}\nmodel: {name: pure_cnn, conv_features: [4, 8]}\n", "mine.yaml"),
        ["model.conv_strides=[2,1]"],
    )
    assert type(config.model).__module__ == "BC_training.models.pure_cnn.model"
    assert config.model.conv_features == (4, 8)
    assert config.model.conv_strides == (2, 1)
    assert isinstance(config, Config)


def test_model_name_defaults_to_the_file_stem(write):
    assert load_config(write(name="pure_cnn.yaml")).model.name == "pure_cnn"
    assert "'pure_cn'" in error_of(write(name="pure_cn.yaml"))


def test_an_explicit_model_name_wins_over_the_stem(write):
    assert load_config(write("dataset: {path: x}\nmodel: {name: pure_cnn}\n", "other.yaml")).model.name == "pure_cnn"
    assert load_config(write(name="other2.yaml"), ["model.name=pure_cnn"]).model.name == "pure_cnn"


def test_run_name_defaults_to_the_file_stem(write):
    file = write(MINIMAL + "model: {name: pure_cnn}\n", "my_run.yaml")
    assert load_config(file).logging.run_name == "my_run"
    assert load_config(file, ["logging.run_name=other"]).logging.run_name == "other"
    assert load_config(file, ["logging.run_name=null"]).logging.run_name == "my_run"


def test_overrides_win_over_the_file_and_the_last_one_wins(write):
    file = write(MINIMAL + "training: {batch_size: 8, num_epochs: 3}\n")
    config = load_config(file, ["training.batch_size=16", "training.batch_size=32", "dataset.frame_size=[72,128]"])
    assert config.training.batch_size == 32
    assert config.training.num_epochs == 3
    assert config.dataset.frame_size == (72, 128)


def test_overrides_as_a_mapping(write):
    overrides = {
        "training.batch_size": 32,
        "training.learning_rate": 1e-5,
        "dataset.frame_size": (72, 128),
        "dataset.record": {"game": "doom/basic"},
        "evaluation.rollout.game": "doom/basic",
        "logging.run_name": None,
        "system.device": "cpu",
    }
    config = load_config(write(), overrides)
    assert (config.training.batch_size, config.training.learning_rate) == (32, 1e-5)
    assert config.dataset.frame_size == (72, 128)
    assert config.dataset.record is not None
    assert config.evaluation.rollout is not None
    assert (config.logging.run_name, config.system.device) == ("pure_cnn", "cpu")
    assert to_dict(load_config(write(), {})) == to_dict(load_config(write()))


def test_wrong_overrides_in_a_mapping(write):
    assert "did you mean 'batch_size'" in error_of(write(), {"training.batchsize": 32})
    assert "training.learning_rate" in error_of(write(), {"training.learning_rate": -1.0})
    assert "training.learning_rate" in error_of(write(), {"training.learning_rate": "abc"})
    assert "'training'" in error_of(write(), {"training": 5})


def test_override_of_a_section_that_the_file_leaves_out(write):
    config = load_config(
        write(), ["dataset.record.game=doom/basic", "dataset.split.train=0.8", "dataset.split.val=0.2"]
    )
    assert config.dataset.record is not None
    assert config.dataset.record.game == "doom/basic"
    assert config.dataset.split.train == 0.8


@pytest.mark.parametrize(
    ("overrides", "is_recorded"),
    [
        ([], True),
        (["dataset.path=./data/x.zarr"], True),
        (["dataset.path=data/y.zarr"], False),
        ({"dataset.path": "data/y.zarr"}, False),
        (["dataset.path=12"], False),
        (["dataset.path=data/y.zarr", "dataset.record.episodes=3"], True),
    ],
)
def test_a_files_record_section_holds_for_the_path_in_that_file_alone(write, overrides, is_recorded):
    file = write("dataset: {path: data/x.zarr, record: {game: doom/basic}}\n")
    assert (load_config(file, overrides).dataset.record is not None) == is_recorded
    only_record = write("dataset: {record: {game: doom/basic}}\n")
    assert load_config(only_record, ["dataset.path=data/x.zarr"]).dataset.record is None


@pytest.mark.parametrize("section", ["record", "rollout"])
def test_null_and_absent_optional_sections(write, section):
    parent = {"record": "dataset", "rollout": "evaluation"}[section]
    absent = load_config(write())
    assert getattr(getattr(absent, parent), section) is None
    file = write(
        """
        dataset: {path: x, record: {game: doom/basic}}
        evaluation: {rollout: {game: doom/basic}}
        """
    )
    assert getattr(getattr(load_config(file), parent), section).game == "doom/basic"
    assert getattr(getattr(load_config(file, [f"{parent}.{section}=null"]), parent), section) is None


@pytest.mark.parametrize("name", ["pure_cnn.yaml", "pure_cnn_small.yaml"])
def test_shipped_configs_load(name):
    config = load_config(f"configs/{name}")
    assert to_dict(config) == to_dict(load_config(PACKAGE / "configs" / name))
    assert config.model.name == "pure_cnn"
    assert config.logging.run_name == Path(name).stem
    assert config.dataset.record is not None
    assert config.evaluation.rollout is not None


def test_pure_cnn_yaml_spells_out_every_default_of_the_model():
    config = load_config("configs/pure_cnn.yaml")
    assert config.model.conv_features == (32, 64, 128, 256)
    assert config.model.conv_strides == (2, 2, 2, 1)
    assert config.model.dense_features == (512, 256)


def test_frozen_at_every_level(write):
    config = load_config(write())
    for section in (config, config.dataset, config.dataset.split, config.model, config.training, config.logging.wandb):
        name = dataclasses.fields(section)[0].name
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(section, name, None)


@pytest.mark.parametrize(
    ("name", "attributes"),
    [("state_cnn.yaml", STATE_NAMES), ("state_cnn_elden_ring.yaml", ELDEN_RING)],
)
def test_shipped_state_sections_name_what_is_recorded(name, attributes):
    config = load_config(f"configs/{name}")
    assert config.model.name == "state_cnn"
    assert config.model.use_state
    assert config.logging.run_name == Path(name).stem
    assert set(config.dataset.state.names) <= set(attributes)
    assert len(config.dataset.state.names) >= len(attributes) - 2  # without ammunition and kills
    assert load_config(f"configs/{name}", ["model.use_state=false", "dataset.state=null"]).dataset.state is None


def test_a_model_that_sees_the_state_needs_the_section():
    message = error_of("configs/state_cnn.yaml", ["dataset.state=null"])
    assert "dataset.state does not say what of it" in message
    assert "model.use_state=false" in message


@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("{ratios: health}", "ratios"),
        ("{relative: {target: [x, y]}}", "relative"),
        ("{relative: [x]}", "relative"),
        ("{angles: [player_angle]}", "angles"),
        ("{categories: weapon}", "categories"),
        ("{standardised: [ammo]}", "standardized"),
    ],
)
def test_faults_in_a_state_section_are_named(section, key):
    message = error_of("configs/pure_cnn.yaml", [f"dataset.state={section}"])
    assert f"dataset.state.{key}" in message or f"did you mean '{key}'" in message


@pytest.mark.parametrize("name", ["pure_cnn.yaml", "quickstart.yaml", "state_cnn.yaml", "state_cnn_elden_ring.yaml"])
def test_saved_config_loads_back_equal(tmp_path, name):
    config = load_config(f"configs/{name}", ["training.learning_rate=0.00003", "logging.wandb.tags=[a,b]"])
    save_config(config, tmp_path / "config.yaml")
    again = load_config(tmp_path / "config.yaml")
    assert again == config
    assert again.logging.run_name == Path(name).stem  # not the new file's


def test_to_dict_survives_json(write):
    config = load_config(write(), ["dataset.frame_size=[72,128]"])
    assert to_dict(from_dict(json.loads(json.dumps(to_dict(config))), "checkpoint")) == to_dict(config)


@pytest.mark.parametrize(
    ("override", "wrong", "meant"),
    [
        ("training.learning_rat=0.1", "training.learning_rat", "learning_rate"),
        ("trainin.learning_rate=0.1", "trainin", "training"),
        ("model.conv_feature=[1]", "model.conv_feature", "conv_features"),
        ("dataset.split.trian=0.5", "dataset.split.trian", "train"),
        ("evaluation.rollout.epsiodes=3", "evaluation.rollout.epsiodes", "episodes"),
        ("logging.wandb.projekt=a", "logging.wandb.projekt", "project"),
    ],
)
def test_unknown_key_names_itself_and_the_nearest(write, override, wrong, meant):
    file = write(MINIMAL + "evaluation: {rollout: {game: doom/basic}}\n")
    message = error_of(file, [override])
    assert f"'{wrong}'" in message
    assert f"did you mean '{meant}'" in message


def test_unknown_key_in_the_file(write):
    message = error_of(write(MINIMAL + "training: {batchsize: 3}\n"))
    assert "'training.batchsize'; did you mean 'batch_size'" in message


def test_unknown_model_names_the_nearest(write):
    assert "unknown model 'pure_cn'; did you mean 'pure_cnn'" in error_of(write(), ["model.name=pure_cn"])


def test_unknown_file_names_the_nearest(tmp_path):
    assert "did you mean configs/pure_cnn.yaml" in error_of(tmp_path / "pure_cn.yaml")


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        ("dataset.record.episodes=0", "dataset.record.episodes"),
        ("dataset.record.seed=-1", "dataset.record.seed"),
        ("dataset.record.frame_size=[4,64]", "dataset.record.frame_size"),
        ("dataset.record.noise=1.5", "dataset.record.noise"),
        ("dataset.record.noise=-0.1", "dataset.record.noise"),
        ("dataset.record.noise_frames=0", "dataset.record.noise_frames"),
        ("dataset.record.seed=4294967290", "dataset.record.seed"),
        ("evaluation.rollout.seed=4294967290", "evaluation.rollout.seed"),
        ("evaluation.rollout.validation_seed=-1", "evaluation.rollout.validation_seed"),
        ("dataset.frame_size=[7,64]", "dataset.frame_size"),
        ("dataset.prefetch=0", "dataset.prefetch"),
        ("dataset.actions=[]", "dataset.actions"),
        ("dataset.actions=[left,left]", "dataset.actions"),
        ("dataset.split.train=0.5", "dataset.split"),
        ("dataset.split.train=-0.5 dataset.split.val=1.5", "dataset.split.train"),
        ("dataset.split.train=0 dataset.split.val=1", "dataset.split.train"),
        ("dataset.split.train=1 dataset.split.val=0", "dataset.split.val"),
        ("dataset.split.test=-0.1 dataset.split.val=0.2", "dataset.split.test"),
        ("training.num_epochs=0", "training.num_epochs"),
        ("training.batch_size=1", "training.batch_size"),
        ("training.learning_rate=-0.001", "training.learning_rate"),
        ("training.learning_rate=0", "training.learning_rate"),
        ("training.learning_rate=.nan", "training.learning_rate"),
        ("training.learning_rate=.inf", "training.learning_rate"),
        ("training.warmup_steps=-1", "training.warmup_steps"),
        ("training.weight_decay=-1", "training.weight_decay"),
        ("training.gradient_clip_norm=0", "training.gradient_clip_norm"),
        ("training.label_smoothing=1", "training.label_smoothing"),
        ("training.label_smoothing=-0.1", "training.label_smoothing"),
        ("training.max_class_weight=0.5", "training.max_class_weight"),
        ("training.keep_last=0", "training.keep_last"),
        ("training.gradient_accumulation=0", "training.gradient_accumulation"),
        ("training.ema_decay=0", "training.ema_decay"),
        ("training.ema_decay=1", "training.ema_decay"),
        ("training.ema_decay=.nan", "training.ema_decay"),
        ("training.focal_gamma=-0.5", "training.focal_gamma"),
        ("training.focal_gamma=10.5", "training.focal_gamma"),
        ("training.focal_gamma=.nan", "training.focal_gamma"),
        ("evaluation.every_n_epochs=0", "evaluation.every_n_epochs"),
        ("evaluation.batch_size=0", "evaluation.batch_size"),
        ("evaluation.threshold=0", "evaluation.threshold"),
        ("evaluation.threshold=1", "evaluation.threshold"),
        ("evaluation.thresholds.attack=1", "evaluation.thresholds.attack"),
        ("evaluation.temperature=0", "evaluation.temperature"),
        ("evaluation.hysteresis=0.5", "evaluation.hysteresis"),
        ("evaluation.hysteresis=0.2 evaluation.thresholds.attack=0.2", "evaluation.hysteresis"),
        ("evaluation.exclusive=[[left]]", "evaluation.exclusive"),
        ("evaluation.rollout.episodes=0", "evaluation.rollout.episodes"),
        ("evaluation.rollout.seed=-1", "evaluation.rollout.seed"),
        ("evaluation.rollout.every_n_epochs=0", "evaluation.rollout.every_n_epochs"),
        ("evaluation.rollout.every_n_epochs=1 evaluation.rollout.validation_seed=19", "rollout.validation_seed"),
        ("evaluation.best_metric=rollout", "evaluation.rollout.every_n_epochs"),
        ("evaluation.best_metric=rollout evaluation.rollout=null", "evaluation.rollout.every_n_epochs"),
        (
            "evaluation.best_metric=rollout evaluation.rollout.every_n_epochs=1 training.early_stopping={metric:loss}",
            "training.early_stopping.metric",
        ),
        ("logging.log_every_steps=0", "logging.log_every_steps"),
        ("logging.run_name=a/b", "logging.run_name"),
        ("logging.run_name=..", "logging.run_name"),
        ("logging.run_name=''", "logging.run_name"),
        ("system.seed=-1", "system.seed"),
        ("system.seed=2147483648", "system.seed"),
        ("system.workers=0", "system.workers"),
        ("model.dropout=1", "model.dropout"),
        ("model.dropout=-0.1", "model.dropout"),
        ("model.conv_features=[0,4,4,4]", "model.conv_features"),
        ("model.conv_strides=[2,2,2,0]", "conv_strides"),
        ("model.dense_features=[-1]", "dense_features"),
        ("model.conv_features=[4]", "model.conv_features"),
        ("model.conv_features=[] model.conv_strides=[]", "model.conv_features"),
    ],
)
def test_out_of_range(write, overrides, key):
    file = write("dataset: {path: x, record: {game: doom/basic}}\nevaluation: {rollout: {game: doom/basic}}\n")
    assert key in error_of(file, overrides.split())


def test_options_of_a_game_are_part_of_its_name(write):
    file = write("dataset: {path: x, record: {game: doom/basic}}\nevaluation: {rollout: {game: doom/basic}}\n")
    for section, option in (("dataset.record", "skill=5"), ("evaluation.rollout", "delay=2")):
        message = f"{section}.{option[:5]} is part of the game's name now: {section}.game=doom/basic?{option}"
        assert message in error_of(file, [f"{section}.{option}"])


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("training.learning_rate=abc", "training.learning_rate"),
        ("training.batch_size=2.5", "training.batch_size"),
        ("training.batch_size=null", "training.batch_size"),
        ("training.class_weights=sqr", "training.class_weights"),
        ("training.schedule=cosinus", "training.schedule"),
        ("training.precision=float16", "training.precision"),
        ("training.loss=bcee", "training.loss"),
        ("training.gradient_accumulation=1.5", "training.gradient_accumulation"),
        ("dataset.cache=disc", "dataset.cache"),
        ("dataset.channel_order=gbr", "dataset.channel_order"),
        ("dataset.validate_episodes=maybe", "dataset.validate_episodes"),
        ("dataset.frame_size=[72]", "dataset.frame_size"),
        ("dataset.frame_size=[72,128,3]", "dataset.frame_size"),
        ("dataset.frame_size=72", "dataset.frame_size"),
        ("dataset.actions=left", "dataset.actions"),
        ("evaluation.best_metric=f1", "evaluation.best_metric"),
        ("system.device=tpu", "system.device"),
        ("dataset.record.game=null", "dataset.record.game"),
        ("training=null", "training"),
        ("model.conv_features=[a,b]", "model.conv_features"),
        ("training=5", "'training'"),
    ],
)
def test_values_of_a_wrong_type(write, override, key):
    assert key in error_of(write(), [override])


def test_missing_dataset_path(write):
    assert "missing mandatory value: dataset" in error_of(write("training: {batch_size: 4}\n"))
    assert "dataset.path" in error_of(write("dataset: {prefetch: 4}\n"))


@pytest.mark.parametrize(
    "text",
    [
        "dataset: [unclosed\n",
        "dataset: {path: x\n",
        "a: b: c\n",
        "\tdataset: x\n",
        "dataset:\n  path: ${nowhere}\n",
        ":",
        "- a\n- b\n",
        "just text\n",
        "5\n",
    ],
)
def test_yaml_that_is_malformed_or_no_mapping_names_the_file(write, text):
    assert "pure_cnn.yaml" in error_of(write(text))


def test_malformed_yaml_names_the_line(write):
    assert "line 4" in error_of(write("dataset:\n  path: x\nmodel: {}\ntraining: [1\n"))


def test_empty_file_lacks_a_dataset_path(write):
    assert "dataset" in error_of(write(""))


@pytest.mark.parametrize(
    "text", ["model: pure_cnn\n", "model: [1]\n", "logging: loud\n", "dataset: x\n", "training: 3\n"]
)
def test_a_section_that_is_no_mapping(write, text):
    prefix = "" if text.startswith("dataset") else MINIMAL
    assert text.split(":")[0] in error_of(write(prefix + text))


@pytest.mark.parametrize("override", ["training.batch_size", "training.batch_size:32", "--fast"])
def test_override_without_an_equals_sign(write, override):
    message = error_of(write(), [override])
    assert f"'{override}'" in message
    assert "KEY=VALUE" in message


@pytest.mark.parametrize("key", ["dataset.frame_size", "model.conv_features", "dataset.record.frame_size"])
def test_the_faulty_list_is_named(key):
    message = error_of("configs/pure_cnn.yaml", [f"{key}=[1,2,x]"])
    assert f"{key}: expected a list" in message
    assert " or " not in message
