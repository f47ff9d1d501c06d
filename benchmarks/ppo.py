"""PPO beside stable-baselines3's: agent steps until CartPole and LunarLander are solved, and agent steps a second.

    python -m venv sb3 && sb3/bin/pip install torch==2.13.0 stable-baselines3 "gymnasium[box2d]" -e .
    uv run python benchmarks/ppo.py --reference sb3/bin/python --seeds 3
    uv run python benchmarks/ppo.py --reference sb3/bin/python --throughput

Both see the state alone and have the settings that RL Baselines3 Zoo publishes for its PPO, but for the clip range,
which does not shrink. Solved means that the mean return of the last 100 episodes, looked at before an update, is at
least 475 and 200. Ours draws its parameters anew (``finetune.from_nothing``): its "clone" of drawn numbers
says only what is seen and pressed, and leaves the state as it is. Its net sees a black picture, too (``ppo_games.py``).
It presses independent buttons; with ``--buttons`` its peer does, too, which else chooses among LunarLander's actions.

``--throughput`` has both play sixteen games of ``doom/deadly_corridor`` at 45x80 from pixels alone, in turn, with nets
of about as many parameters and multiplications (theirs is the "NatureCNN"); the rates are medians over iterations.
"""

import argparse
import json
import os
import subprocess
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, median
from time import perf_counter

import gymnasium
import numpy as np
from rich.console import Console

from BC_training.common.action import Action
from BC_training.common.config import load_config as load_training
from BC_training.common.storage.writer import EpisodeWriter, Names, recording
from BC_training.experiments.finetune import finetune
from BC_training.finetuning.setup import load_config
from BC_training.games import GameSpec, make_game
from BC_training.games.gym.actions import map_actions
from BC_training.games.gym.names import Names as GymNames
from BC_training.train import train
from BC_training.training import checkpoint

GAMES = {
    "CartPole-v1": {
        "bar": 475.0,
        "units": 128,  # of each layer of the trunk, which policy and value share; its peer has two nets of 64
        "steps": 100_000,
        "games": 8,
        "horizon": 32,
        "minibatches": 1,
        "epochs": 20,
        "gamma": 0.98,
        "gae_lambda": 0.8,
        "entropy": 0.0,
        "learning_rate": 1e-3,
        "clip": 0.2,
        "schedule": "linear",
        "reward_scale": 1,
    },
    "LunarLander-v3": {
        "bar": 200.0,
        "units": 64,
        "steps": 1_000_000,
        "games": 16,
        "horizon": 1024,
        "minibatches": 256,
        "epochs": 4,
        "gamma": 0.999,
        "gae_lambda": 0.98,
        "entropy": 0.01,
        "learning_rate": 3e-4,
        "clip": 0.2,
        "schedule": "constant",
        "reward_scale": 30,  # value and policy share a trunk here, which the unscaled returns would govern
    },
}
CLONE = """
dataset:
  path: {folder}/{game}.zarr
  state: {{standardized: {names}}}
  cache: none
model:
  name: state_cnn
  conv_features: [4]
  conv_strides: [4]
  grid_features: 1
  vision_features: [4]
  state_features: [{units}]
  dense_features: [{units}]
  dropout: 0
  batch_norm: false
training: {{num_epochs: 1, class_weights: none, checkpoint_dir: {folder}/c}}
evaluation: {{rollout: null}}
logging: {{run_name: {game}, log_dir: {folder}/l, report: false, wandb: {{enabled: false}}}}
"""


def drawn_dataset(path: Path, spec: str) -> str:
    """Writes states of mean 0 and standard deviation 1 and random buttons of a game; returns the states' names."""
    rng = np.random.default_rng(0)
    with closing(make_game(GameSpec.parse(spec), frame_size=(8, 8))) as env:
        game = env.unwrapped
        with recording(path, Names(game.buttons, (), game.state_names)):
            for number in range(8):
                writer, states = EpisodeWriter(path, number), rng.standard_normal((64, len(game.state_names)))
                for state in (states - states.mean(0)) / states.std(0):
                    action = Action.of(rng.random(len(game.buttons)) < 0.5)
                    writer.append(np.zeros((3, 8, 8), np.uint8), action, state.astype(np.float32))
                writer.commit({"fps": game.fps})
        return f"[{', '.join(game.state_names)}]"


@dataclass(frozen=True)
class Found:
    """The agent steps until a game was solved, None where it was not, the best mean return of 100 episodes by then."""

    steps: int | None
    best: float | None
    seconds: float  # of the whole run

    def __str__(self) -> str:
        solved = "not solved" if self.steps is None else f"{self.steps:,} steps"
        best = "unknown" if self.best is None else f"{self.best:.1f}"
        return f"{solved}, at best {best}, {self.seconds:.0f} s"


def ours(game: str, seed: int, folder: Path, console: Console) -> Found:
    settings, clone, run = GAMES[game], folder / "c" / game, f"{game}-{seed}"
    spec = f"gym/ppo_games:Black{game}"
    if not clone.exists():
        names = drawn_dataset(folder / f"{game}.zarr", spec)
        text = CLONE.format(folder=folder, game=game, names=names, units=settings["units"])
        (folder / "clone.yaml").write_text(text, encoding="utf-8")
        train(load_training(folder / "clone.yaml"), console)
    (folder / "ppo.yaml").write_text("", encoding="utf-8")
    values = {f"finetune.{key}": value for key, value in settings.items() if key not in ("bar", "units")}
    values |= {"finetune.from": clone, "finetune.game": spec, "finetune.from_nothing": "true"}
    values["finetune.reward_clip"] = 1e9  # none
    values |= {"finetune.kl": 0, "finetune.value_warmup": 0, "finetune.value_layers": "[64]", "system.seed": seed}
    values |= {"finetune.first_seed": 1000 + 100_000 * seed, "training.checkpoint_dir": folder / "c"}
    values |= {"logging.run_name": run, "logging.log_dir": folder / "l", "logging.report": "false"}
    values |= {"logging.wandb.enabled": "false", "evaluation.rollout.episodes": 1, "evaluation.rollout.video": "false"}
    values |= {"evaluation.rollout.reference_means": "[0, 1]"}
    began = perf_counter()
    finetune(load_config(folder / "ppo.yaml", [f"{key}={value}" for key, value in values.items()]), console)
    seconds, episodes, best = perf_counter() - began, 0, None
    for row in map(json.loads, (folder / "l" / run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()):
        if row["kind"] == "epoch":
            episodes += row["episodes"]
            if episodes >= 100:
                best = row["return"] if best is None else max(best, row["return"])
                if best >= settings["bar"]:
                    return Found(row["step"], best, seconds)
    return Found(None, best, seconds)


def nearest(game: str) -> list[int]:
    """Which of the game's actions each combination of its buttons, the first in the lowest bit, means."""
    with closing(gymnasium.make(f"ppo_games:Black{game}")) as env:
        actions = map_actions(env, game, GymNames())
    buttons = range(len(actions.buttons))
    return [int(actions.raw(Action.of([bool(n >> i & 1) for i in buttons]))) for n in range(2 ** len(buttons))]


def theirs(game: str, seed: int, python: str, buttons: bool) -> Found:
    options = GAMES[game] | {"game": game, "seed": seed, "threads": 1}
    options = json.dumps(options | ({"nearest": nearest(game)} if buttons else {}))
    script = Path(__file__).with_name("ppo_reference.py")
    done = subprocess.run([python, script, options], check=True, capture_output=True, text=True)
    return Found(**json.loads(done.stdout.splitlines()[-1]))


PIXELS = """
dataset:
  path: {folder}/corridor.zarr
  record: {{game: doom/deadly_corridor, player: random, episodes: 4, seed: 900000, frame_size: [45, 80]}}
  split: {{train: 0.5, val: 0.5, test: 0}}
model:
  name: state_cnn
  use_state: false
  conv_features: [16, 32, 64]
  conv_strides: [2, 2, 2]
  vision_features: [400]
  dense_features: []
  dropout: 0
  batch_norm: false
training: {{num_epochs: 1, checkpoint_dir: {folder}/c}}
evaluation: {{rollout: null}}
logging: {{run_name: corridor, log_dir: {folder}/l, report: false, wandb: {{enabled: false}}}}
"""
PLAY = {"game": "doom/deadly_corridor", "games": 16, "horizon": 128, "minibatches": 4, "epochs": 3, "steps": 20_480}
PLAY |= {"gamma": 0.99, "gae_lambda": 0.95, "entropy": 0.01, "learning_rate": 2.5e-4, "clip": 0.2, "schedule": "linear"}


def throughput(folder: Path, python: str, console: Console, turns: int = 3) -> None:
    """Prints the agent steps a second of both, in turn."""
    (folder / "clone.yaml").write_text(PIXELS.format(folder=folder), encoding="utf-8")
    clone = train(load_training(folder / "clone.yaml"), console)
    (folder / "ppo.yaml").write_text("", encoding="utf-8")
    for turn in range(turns):
        run = f"corridor-{turn}"
        values = {f"finetune.{key}": value for key, value in PLAY.items()} | {"finetune.from": clone}
        values |= {"finetune.value_warmup": 0, "training.checkpoint_dir": folder / "c", "logging.log_dir": folder / "l"}
        values |= {"logging.run_name": run, "logging.report": "false", "logging.wandb.enabled": "false"}
        values |= {"evaluation.rollout.episodes": 1, "evaluation.rollout.video": "false", "training.resume": "never"}
        values |= {"evaluation.rollout.reference_means": "[0, 1]"}
        finetune(load_config(folder / "ppo.yaml", [f"{key}={value}" for key, value in values.items()]), console)
        log = (folder / "l" / run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [row for row in map(json.loads, log) if row["kind"] == "epoch"][2:]
        ours, shares = (median(row[key] for row in rows) for key in ("frames_per_second", "data_wait"))
        options = json.dumps(PLAY | {"frame_size": [45, 80], "threads": os.cpu_count()})
        script = Path(__file__).with_name("ppo_reference.py")
        done = subprocess.run([python, script, options], check=True, capture_output=True, text=True)
        theirs = json.loads(done.stdout.splitlines()[-1])
        size = checkpoint_size(clone)
        print(
            f"ours {ours:,.0f} agent steps/s ({shares:.0%} in games, {size:,} parameters), stable-baselines3 "
            f"{theirs['rate']:,.0f} ({theirs['parameters']:,} parameters): {ours / theirs['rate']:.2f}",
            flush=True,
        )


def checkpoint_size(run: Path) -> int:
    """The parameters of a run's policy."""
    return checkpoint.read_model(checkpoint.read(run)).parameter_count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", nargs="+", choices=GAMES, default=[*GAMES])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--reference", help="a Python that has stable-baselines3; without it only ours is measured")
    parser.add_argument("--folder", type=Path, default=Path("ppo"), help="where the runs go")
    parser.add_argument("--buttons", action="store_true", help="the reference, too, presses independent buttons")
    parser.add_argument("--throughput", action="store_true", help="agent steps a second; needs --reference")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    console = Console(quiet=True)
    if args.throughput:
        throughput(args.folder, args.reference, console)
        return
    for game in args.games:
        found: dict[str, list[int | None]] = {"ours": [], "stable-baselines3": []}
        for seed in range(args.seeds):
            runs = {"ours": ours(game, seed, args.folder, console)}
            if args.reference:
                runs["stable-baselines3"] = theirs(game, seed, args.reference, args.buttons)
            for who, run in runs.items():
                found[who].append(run.steps)
                print(f"{game} seed {seed}: {who} {run}", flush=True)
        for who, runs in found.items():
            if solved := [steps for steps in runs if steps is not None]:
                print(f"{game}: {who} solved {len(solved)} of {len(runs)}, after {mean(solved):,.0f} steps (mean)")


if __name__ == "__main__":
    main()
