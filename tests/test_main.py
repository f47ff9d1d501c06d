"""The command line accepts commands and refuses bad input."""

import os
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from BC_training import __main__ as command_line
from BC_training.common.config import load_config
from BC_training.common.errors import UserError

REPO = Path(__file__).resolve().parent.parent
QUICKSTART = ["--config", "configs/quickstart.yaml"]


def call(monkeypatch, capsys, arguments: list[str]) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["BC_training", *arguments])
    with pytest.raises(SystemExit) as exit_:
        command_line.main()
    captured = capsys.readouterr()
    return int(exit_.value.code or 0), captured.out, captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([*QUICKSTART, "dataset.record=null"], "no dataset at data/quickstart.zarr"),
        ([*QUICKSTART, "dataset.path=data/mistyped.zarr"], "no dataset at data/mistyped.zarr"),
        ([*QUICKSTART, f"dataset.path=['{__file__}', data/mistyped.zarr]"], "no dataset at data/mistyped.zarr"),
        ([*QUICKSTART, "dataset.path=[a.zarr,x/a.zarr]"], "have the same name"),
        ([*QUICKSTART, "dataset.record=null", "dataset.path=."], ". is not a zarr group"),
        ([*QUICKSTART, "training.learning_rat=1"], "did you mean 'learning_rate'"),
        ([*QUICKSTART, "training.learning_rate=-1"], "training.learning_rate=-1"),
        ([*QUICKSTART, "dataset.split.train=0.3"], "must sum to 1"),
        ([*QUICKSTART, "model.name=pure_cn"], "did you mean 'pure_cnn'"),
        ([*QUICKSTART, "dataset.record.game=doom/deadly_coridor"], "did you mean 'doom/deadly_corridor'"),
        ([*QUICKSTART, "dataset.record.player=expret"], "did you mean 'expert'"),
        (["--config", "configs/quickstar.yaml"], "did you mean configs/quickstart.yaml"),
        ([*QUICKSTART, "training.batch_size"], "KEY=VALUE"),
        (["recrod"], "did you mean 'record'"),
        (["rollout", "--player", "expret"], "did you mean 'expert'"),
        (["rollout", "--player", "."], ". is not a checkpoint"),
        (["rollout", "--player", "noop", "--game", "doom/none"], "unknown game 'doom/none'"),
        (["rollout", "--player", "noop", "--video", "no/where.mp4"], "cannot write no/where.mp4"),
        (["evaluate", "nowhere"], "nowhere does not exist"),
        (["record", "--out", "x.zarr", "--game", "doom/none"], "unknown game 'doom/none'"),
        (["record", "--out", "x.zarr", "--label", "expret"], "did you mean 'expert'"),
        (["record", "--out", "x.zarr", "--skill", "5"], "--game 'doom/deadly_corridor?skill=VALUE'"),
        (["record", "--out", "x.zarr", "--size", "72"], "--size 72 is not HEIGHTxWIDTH"),
        (["record", "--out", "x.zarr", "--mix", "0.5"], "mix=0.5 mixes in the actions of nobody"),
        (["record", "--out", "/proc/x.zarr"], "cannot create /proc/x.zarr"),
        (["record", "--out", f"{__file__}/x.zarr"], "cannot create"),
        (["record", "--out", "x" * 300], "File name too long"),
        (["dagger", *QUICKSTART, "--label", "expret"], "did you mean 'expert'"),
        (["dagger", *QUICKSTART, "evaluation.rollout=null"], "needs an evaluation.rollout section"),
        (["sweep", *QUICKSTART, "model.dropout=0.1"], "there is nothing to draw"),
        (["sweep", *QUICKSTART, "model.dropot=0..1"], "did you mean 'dropout'"),
        (["sweep", *QUICKSTART, "model.dropout=0..1", "--trials", "0"], "--trials 0"),
        (["sweep", *QUICKSTART, "model.dropout=0..1", "--objective", "rolout"], "did you mean 'rollout'"),
        (["sweep", *QUICKSTART, "dataset.record=null", "model.dropout=0..1"], "no dataset at data/quickstart.zarr"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(monkeypatch, capsys, tmp_path, arguments, message):
    monkeypatch.chdir(tmp_path)
    code, _, error = call(monkeypatch, capsys, arguments)
    assert code == 2
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert message in error
    assert not list(tmp_path.iterdir())


def test_the_exit_code_reaches_the_shell():
    done = subprocess.run([sys.executable, "-m", "BC_training", "recrod"], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)


def test_every_command_shows_an_example_in_its_help(monkeypatch, capsys):
    apps = [command_line.app, command_line.experiments]
    commands = [[found.callback.__name__] for app in apps for found in app.registered_commands]
    commands += [["visualize", found.callback.__name__] for found in command_line.visualize.registered_commands]
    assert len(commands) == 20
    for command in commands:
        code, out, _ = call(monkeypatch, capsys, [*command, "--help"])
        assert code == 0
        assert f"uv run -m BC_training {' '.join(command) if command != ['train'] else '--config'}" in out


def test_the_console_script_calls_itself_ranni(tmp_path):
    script = tmp_path / "ranni"
    script.write_text("from BC_training.__main__ import main\nmain()\n")
    done = subprocess.run([sys.executable, script, "cache", "-h"], capture_output=True, text=True, check=True)
    assert "Usage: ranni cache " in done.stdout
    assert "ranni cache --clear" in done.stdout
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"ranni": "BC_training.__main__:main"}


def test_requirements_are_the_projects_dependencies():
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    lines = (REPO / "BC_training/requirements.txt").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == project["dependencies"]


def test_help_imports_nothing_heavy():
    code = "import sys, BC_training.__main__; print({'jax', 'vizdoom', 'wandb', 'zarr'} & {*sys.modules})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def set_up_check() -> dict[str, Any]:
    return runpy.run_path(str(REPO / "BC_training/scripts/test_setup.py"))


@pytest.mark.parametrize(
    ("record", "code", "line", "last"),
    [
        ("{game: doom/basic, frame_size: [24, 32]}", 0, "note  dataset        nowhere.zarr is not there yet", "ready"),
        ("null", 1, "FAIL  dataset        nowhere.zarr is missing", "1 of 6 checks failed"),
    ],
)
def test_set_up_check_says_what_fails(tmp_path, monkeypatch, capsys, record, code, line, last):
    config = tmp_path / "mine.yaml"
    config.write_text(
        f"dataset: {{path: nowhere.zarr, frame_size: [24, 32], record: {record}}}\n"
        "model: {name: pure_cnn, conv_features: [4], conv_strides: [2], dense_features: [8]}\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["test_setup.py", "--config", str(config)])
    assert set_up_check()["main"]() == code
    lines = capsys.readouterr().out.splitlines()
    assert any(found.startswith(line) for found in lines)
    assert [found[:4] for found in lines].count("FAIL") == code
    assert lines[-1] == last


@pytest.mark.parametrize(
    ("variant", "changes"),
    [
        ("temporal_cnn", ["dataset.action_history=2", "dataset.action_shift=1", "model.action_chunk=2"]),
        pytest.param(
            *("state_cnn", ["dataset.history=2", "training.ema_decay=0.9", "training.gradient_accumulation=16"]),
            marks=pytest.mark.slow,
        ),
    ],
)
def test_set_up_check_trains_a_step_of_any_variant(variant, changes):
    data = "dataset.path=none.zarr"
    small = [data, "dataset.frame_size=[24,32]", "model.conv_features=[4,8]", "model.conv_strides=[2,2]"]
    config = load_config(f"configs/{variant}.yaml", [*small, *changes])
    assert "on a batch of 4 random frames" in set_up_check()["training_step"](config)


def test_set_up_check_looks_at_the_dataset_that_is_there(tmp_path, make_dataset):
    make_dataset(tmp_path / "x.zarr", [5], actions=3, state=2, size=(30, 48))
    data = [f"dataset.path={tmp_path}/x.zarr", "dataset.frame_size=null"]
    check = set_up_check()
    patches = ["model.patch_size=[15,16]", "evaluation.rollout=null"]
    assert "at 30x48" in check["model"](load_config("configs/vit_policy.yaml", [*data, *patches]))
    with pytest.raises(UserError, match="unknown state attribute 'health'"):
        check["model"](load_config("configs/state_cnn.yaml", data))


def test_importing_the_package_adds_to_a_users_xla_flags():
    code = "import os, BC_training; print(os.environ['XLA_FLAGS'])"
    mine = {"XLA_FLAGS": "--xla_cpu_enable_fast_math=false", "PATH": ""}
    ours = "--xla_cpu_experimental_ynn_fusion_type="
    for environment, expected in ((mine, f"{mine['XLA_FLAGS']} {ours}"), ({"PATH": ""}, ours)):
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.strip() == expected


def test_a_command_keeps_bytecode_in_the_cache_folder_where_it_may_write_none_beside_the_sources(tmp_path):
    forbidden = os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "XDG_CACHE_HOME": str(tmp_path)}
    forbidden.pop("PYTHONPYCACHEPREFIX", None)
    command = [sys.executable, "-m", "BC_training", "cache"]
    subprocess.run(command, env=forbidden, capture_output=True, check=True)
    assert list(tmp_path.glob("bc_training/bytecode/**/cache*.pyc"))
