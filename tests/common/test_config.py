import dataclasses
import json
import textwrap
from pathlib import Path

import pytest
from dataset_files import user_error

from BC_training.common.config import from_dict, load_config, save_config, to_dict
from BC_training.common.schema import Config
from BC_training.games.doom.game import STATE_NAMES

MINIMAL = "dataset:\n  path: data/x.zarr\n"
GAMES = "dataset: {path: x, record: {game: doom/basic}}\nevaluation: {rollout: {game: doom/basic}}\n"
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


def error_of(*args) -> str:
    return user_error(load_config, *args)


def test_the_model_section_is_typed_by_the_variant_that_it_names(write):
    config = load_config(
        write("dataset: {path: x}\nmodel: {name: pure_cnn, conv_features: [4, 8]}\n", "mine.yaml"),
        ["model.conv_strides=[2,1]"],
    )
    assert isinstance(config, Config)
    assert type(config.model).__module__ == "BC_training.models.pure_cnn.model"
    assert (config.model.conv_features, config.model.conv_strides) == ((4, 8), (2, 1))


def test_model_and_run_are_named_after_the_file_unless_they_have_a_name(write):
    config = load_config(write(name="pure_cnn.yaml"))
    assert (config.model.name, config.logging.run_name) == ("pure_cnn", "pure_cnn")
    file = write(MINIMAL + "model: {name: pure_cnn}\n", "my_run.yaml")
    assert load_config(file).logging.run_name == "my_run"
    assert load_config(file, ["logging.run_name=other"]).logging.run_name == "other"
    assert load_config(file, ["logging.run_name=null"]).logging.run_name == "my_run"
    assert load_config(write(name="other.yaml"), ["model.name=pure_cnn"]).model.name == "pure_cnn"
    assert "unknown model 'pure_cn'; did you mean 'pure_cnn'" in error_of(write(name="pure_cn.yaml"))


def test_overrides_win_over_the_file_and_the_last_one_wins(write):
    file = write(MINIMAL + "training: {batch_size: 8, num_epochs: 3}\n")
    config = load_config(file, ["training.batch_size=16", "training.batch_size=32", "dataset.frame_size=[72,128]"])
    assert config.training.batch_size == 32
    assert config.training.num_epochs == 3
    assert config.dataset.frame_size == (72, 128)


def test_overrides_may_be_a_mapping(write):
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


def test_every_section_is_frozen(write):
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


def test_an_optional_section_is_there_if_it_is_set(write):
    absent = load_config(write())
    assert absent.dataset.record is None
    assert absent.evaluation.rollout is None
    present = load_config(write(GAMES))
    assert present.dataset.record.game == present.evaluation.rollout.game == "doom/basic"
    removed = load_config(write(GAMES), ["dataset.record=null", "evaluation.rollout=null"])
    assert removed.dataset.record is None
    assert removed.evaluation.rollout is None


@pytest.mark.parametrize("name", ["pure_cnn.yaml", "quickstart.yaml", "state_cnn.yaml", "state_cnn_elden_ring.yaml"])
def test_a_saved_config_loads_back_equal(tmp_path, name):
    config = load_config(f"configs/{name}", ["training.learning_rate=0.00003", "logging.wandb.tags=[a,b]"])
    save_config(config, tmp_path / "config.yaml")
    again = load_config(tmp_path / "config.yaml")
    assert again == config
    assert again.logging.run_name == Path(name).stem  # not the new file's


def test_a_config_comes_back_from_json(write):
    config = load_config(write(), ["dataset.frame_size=[72,128]"])
    assert to_dict(from_dict(json.loads(json.dumps(to_dict(config))), "checkpoint")) == to_dict(config)


# --- errors


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
def test_an_unknown_key_is_named_with_the_nearest(write, override, wrong, meant):
    message = error_of(write(GAMES), [override])
    assert f"'{wrong}'" in message
    assert f"did you mean '{meant}'" in message


def test_an_unknown_file_is_named_with_the_nearest(tmp_path):
    assert "did you mean configs/pure_cnn.yaml" in error_of(tmp_path / "pure_cn.yaml")


OUT_OF_RANGE = {
    "dataset.record.episodes": ["0"],
    "dataset.record.seed": ["-1", "4294967290"],
    "dataset.record.frame_size": ["[4,64]"],
    "dataset.record.noise": ["1.5", "-0.1"],
    "dataset.record.noise_frames": ["0"],
    "dataset.frame_size": ["[7,64]"],
    "dataset.prefetch": ["0"],
    "dataset.actions": ["[left,left]"],
    "dataset.axes": ["[steer,steer]"],
    "dataset.axis_bins": ["20", "1", "257"],
    "dataset.axis_mu": ["0", "1001"],
    "dataset.split.train": ["-0.5 dataset.split.val=1.5", "0 dataset.split.val=1"],
    "dataset.split.val": ["0 dataset.split.train=1"],
    "dataset.split.test": ["-0.1 dataset.split.val=0.2"],
    "training.num_epochs": ["0"],
    "training.batch_size": ["1"],
    "training.learning_rate": ["-0.001", "0", ".nan", ".inf"],
    "training.warmup_steps": ["-1"],
    "training.weight_decay": ["-1"],
    "training.gradient_clip_norm": ["0"],
    "training.label_smoothing": ["1", "-0.1"],
    "training.max_class_weight": ["0.5"],
    "training.keep_last": ["0"],
    "training.gradient_accumulation": ["0"],
    "training.ema_decay": ["0", "1", ".nan"],
    "training.focal_gamma": ["-0.5", "10.5", ".nan"],
    "evaluation.every_n_epochs": ["0"],
    "evaluation.batch_size": ["0"],
    "evaluation.threshold": ["0", "1"],
    "evaluation.thresholds.attack": ["1"],
    "evaluation.temperature": ["0"],
    "evaluation.hysteresis": ["0.5", "0.2 evaluation.thresholds.attack=0.2"],
    "evaluation.exclusive": ["[[left]]"],
    "evaluation.rollout.episodes": ["0"],
    "evaluation.rollout.seed": ["-1", "4294967290"],
    "evaluation.rollout.every_n_epochs": ["0"],
    "evaluation.rollout.validation_seed": ["-1", "19 evaluation.rollout.every_n_epochs=1"],
    "evaluation.best_metric": ["rollout", "rollout evaluation.rollout=null"],
    "logging.log_every_steps": ["0"],
    "logging.run_name": ["a/b", "..", "''"],
    "system.seed": ["-1", "2147483648"],
    "system.workers": ["0"],
    "model.dropout": ["1", "-0.1"],
    "model.conv_features": ["[0,4,4,4]", "[4]", "[] model.conv_strides=[]"],
    "model.conv_strides": ["[2,2,2,0]"],
    "model.dense_features": ["[-1]"],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in OUT_OF_RANGE.items() for value in values])
def test_a_value_out_of_range_is_named_by_its_key(write, key, value):
    assert key in error_of(write(GAMES), f"{key}={value}".split())


def test_settings_that_exclude_each_other_are_refused(write):
    assert "dataset.split=0.6 (the sum)" in error_of(write(), ["dataset.split.train=0.5"])
    by_play = ["evaluation.best_metric=rollout", "evaluation.rollout.every_n_epochs=1"]
    message = error_of(write(GAMES), [*by_play, "training.early_stopping={metric: loss}"])
    assert "training.early_stopping.metric" in message


WRONG_TYPES = {
    "training.learning_rate": ["abc"],
    "training.batch_size": ["2.5", "null"],
    "training.class_weights": ["sqr"],
    "training.schedule": ["cosinus"],
    "training.precision": ["float16"],
    "training.loss": ["bcee"],
    "dataset.cache": ["disc"],
    "dataset.channel_order": ["gbr"],
    "dataset.validate_episodes": ["maybe"],
    "dataset.frame_size": ["[72]", "[72,128,3]", "72"],
    "dataset.actions": ["left"],
    "dataset.state.ratios": ["health"],
    "dataset.state.relative": ["{target: [x, y]}", "[x]"],
    "dataset.state.angles": ["[player_angle]"],
    "dataset.state.categories": ["weapon"],
    "evaluation.best_metric": ["f1"],
    "system.device": ["tpu"],
    "dataset.record.game": ["null"],
    "training": ["null", "5"],
    "model.conv_features": ["[a,b]"],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG_TYPES.items() for value in values])
def test_a_value_of_a_wrong_type_is_named_by_its_key(write, key, value):
    assert key in error_of(write(), [f"{key}={value}"])


@pytest.mark.parametrize("key", ["dataset.frame_size", "model.conv_features", "dataset.record.frame_size"])
def test_a_faulty_list_is_named(key):
    assert f"{key}: expected a list" in error_of("configs/pure_cnn.yaml", [f"{key}=[1,2,x]"])


def test_a_wrong_value_in_a_mapping_is_named_by_its_key(write):
    assert "did you mean 'batch_size'" in error_of(write(), {"training.batchsize": 32})
    assert "training.learning_rate" in error_of(write(), {"training.learning_rate": "abc"})
    assert "'training'" in error_of(write(), {"training": 5})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("dataset: [unclosed\n", "pure_cnn.yaml: line 1"),
        ("dataset:\n  path: x\nmodel: {}\ntraining: [1\n", "pure_cnn.yaml: line 4"),
        ("a: b: c\n", "pure_cnn.yaml"),
        ("\tdataset: x\n", "pure_cnn.yaml"),
        ("dataset:\n  path: ${nowhere}\n", "pure_cnn.yaml"),
        (":", "pure_cnn.yaml"),
        ("- a\n- b\n", "pure_cnn.yaml"),
        ("just text\n", "pure_cnn.yaml"),
        ("5\n", "pure_cnn.yaml"),
        ("", "dataset"),
        ("training: {batch_size: 4}\n", "missing mandatory value: dataset"),
        ("dataset: {prefetch: 4}\n", "dataset.path"),
        (MINIMAL + "model: pure_cnn\n", "'model' is a section"),
        (MINIMAL + "model: [1]\n", "'model' is a section"),
        (MINIMAL + "logging: loud\n", "'logging' is a section"),
        ("dataset: x\n", "'dataset' is a section"),
        (MINIMAL + "training: {batchsize: 3}\n", "'training.batchsize'; did you mean 'batch_size'"),
    ],
)
def test_a_faulty_file_is_refused(write, text, message):
    assert message in error_of(write(text))


def test_options_of_a_game_are_part_of_its_name(write):
    file = write("dataset: {path: x, record: {game: doom/basic}}\nevaluation: {rollout: {game: doom/basic}}\n")
    for section, option in (("dataset.record", "skill=5"), ("evaluation.rollout", "delay=2")):
        message = f"{section}.{option[:5]} is part of the game's name now: {section}.game=doom/basic?{option}"
        assert message in error_of(file, [f"{section}.{option}"])
