"""The config of a fine-tuning is the clone's, with a section of its own."""

from dataclasses import replace

import pytest
import untrained

from BC_training.common.config import load_config as load_training
from BC_training.common.config import to_dict
from BC_training.common.errors import UserError
from BC_training.common.settings.evaluation import EvaluationConfig, RolloutConfig
from BC_training.common.settings.finetune import FinetuneConfig
from BC_training.finetuning.setup import Setup, load_config

DOOM = ("move_left", "move_right", "attack")


@pytest.fixture(scope="module")
def clone(tmp_path_factory, make_config):
    """A run of an untrained clone that presses Doom's buttons in ``basic``."""
    folder, config = tmp_path_factory.mktemp("clone"), make_config()
    play = RolloutConfig("doom/basic", episodes=7, every_n_epochs=2)
    evaluation = EvaluationConfig(best_metric="rollout", rollout=play, exclusive=(("move_left", "move_right"),))
    training = replace(config.training, checkpoint_dir=str(folder), batch_size=32, early_stopping=None)
    config = replace(config, evaluation=evaluation, training=training)
    return untrained.save_run(folder / "run", config, replace(untrained.INPUTS, action_names=DOOM))


@pytest.fixture
def load(clone, tmp_path):
    """Loads a fine-tuning's config from a file with this text and these overrides."""

    def load(*overrides: str, text: str = ""):
        (tmp_path / "mine.yaml").write_text(text)
        return load_config(tmp_path / "mine.yaml", [f"finetune.from={clone}", *overrides])

    return load


def test_what_is_not_set_is_the_clones(load, clone):
    config = load(text="finetune: {steps: 4096, games: 4, horizon: 16}\nlogging: {log_dir: there}\n")
    assert config.finetune is not None
    assert config.finetune.from_ == str(clone)
    assert config.finetune.game == "doom/basic"
    assert config.finetune.iterations == config.training.num_epochs == 64
    assert config.training.batch_size == 32  # the clone's
    assert config.training.checkpoint_dir == "BC_training/checkpoints"  # not the clone's
    assert (config.logging.run_name, config.logging.log_dir) == ("mine", "there")
    play = config.evaluation.rollout
    assert play is not None
    assert (play.game, play.episodes, play.every_n_epochs) == ("doom/basic", 7, None)


def test_it_plays_as_it_learns_by_drawing_what_is_pressed(load):
    drawn = load().evaluation
    assert (drawn.temperature, drawn.exclusive, drawn.hysteresis) == (1.0, (), 0.0)
    assert load("evaluation.temperature=0.5").evaluation.temperature == 0.5


def test_another_game_is_also_what_is_scored(load):
    config = load("finetune.game=doom/basic?skill=5")
    assert config.evaluation.rollout is not None
    assert config.evaluation.rollout.game == "doom/basic?skill=5"


def test_its_saved_config_is_read_back(load, tmp_path):
    from BC_training.common.config import save_config

    config = load("finetune.kl=0.5", "finetune.steps=5000")
    save_config(config, tmp_path / "saved.yaml")
    again = load_config(tmp_path / "saved.yaml", [])
    assert to_dict(again) == to_dict(config)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["finetune.from=null"], "finetune.from=CHECKPOINT is missing"),
        (["finetune.from=nowhere"], "nowhere does not exist"),
        (["finetune.kll=1"], "unknown key 'finetune.kll'; did you mean 'kl'"),
        (["finetune.minibatches=3"], "finetune.minibatches=3 is out of range: a number that divides"),
        (["finetune.kl=0.1", "finetune.from_nothing=true"], "has no clone to stay near: set finetune.kl=0"),
        (["finetune.clip=2"], "finetune.clip=2.0 is out of range: between 0 and 1"),
        (["model.dense_features=[8]"], "section 'model' is the clone's"),
        (["training.init_from=elsewhere"], "begins at finetune.from: leave it out"),
        (["dataset.history=4"], "section 'dataset' is the clone's"),
        (
            ["finetune.curriculum=[{game: doom/basic, until: 9}, {game: doom/basic, until: 9}]"],
            "finetune.curriculum=.* each later",
        ),
        (["finetune.curriculum=[{game: doom/basic}]"], "finetune.curriculum.* lacks until"),
        (["finetune.curriculum=[{game: doom/basic, until: soon}]"], "finetune.curriculum until=soon"),
    ],
)
def test_bad_settings_are_one_line(load, overrides, said):
    with pytest.raises(UserError, match=said) as caught:
        load(*overrides)
    assert "\n" not in str(caught.value)


def test_a_game_that_does_not_fit_is_named_before_anything_is_written(load):
    with pytest.raises(UserError, match=r"has buttons \[move_left, move_right, attack\], the game has"):
        Setup.build(load("finetune.game=doom/my_way_home"))


def test_a_curriculum_says_what_is_played_when():
    stages = [{"game": "doom/basic?skill=1", "until": 100}, {"game": "doom/basic?skill=3", "until": 200}]
    from BC_training.common.settings.finetune import StageConfig

    config = FinetuneConfig("clone", "doom/basic?skill=5", tuple(StageConfig(**stage) for stage in stages))
    found = {step: config.game_at(step)[-1] for step in (0, 99, 100, 199, 200, 10**9)}
    assert found == {0: "1", 99: "1", 100: "3", 199: "3", 200: "5", 10**9: "5"}


def test_a_training_does_not_take_the_section(clone, load, tmp_path):
    from BC_training.training.setup import require_runnable

    with pytest.raises(UserError, match="is for the command of that name"):
        require_runnable(load())
    with pytest.raises(UserError, match="it is of a fine-tuning: finetune --config"):
        load_training("configs/finetune.yaml")
