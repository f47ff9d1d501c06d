"""Records a player's episodes in a game into a dataset."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from BC_training.common import storage
from BC_training.common.config import RecordConfig
from BC_training.common.errors import UserError
from BC_training.games import make_game
from BC_training.games.episodes import Session, run_episodes
from BC_training.games.players import make_player


class RecordSession(Session):
    """One worker's game and player, writing episodes into ``out``."""

    def __init__(self, out: Path, config: RecordConfig):
        super().__init__(config.game, config.player, config.frame_size, config.skill)
        self._out, self._config = out, config

    def run(self, task: tuple[int, int]) -> dict[str, Any]:
        """Records ``task`` = (episode number, seed); returns its length and score."""
        number, seed = task
        writer = storage.EpisodeWriter(self._out, number)
        try:
            score = self._play(seed, writer)
            writer.commit(
                {
                    "fps": self.game.fps,
                    "game": self._config.game,
                    "player": self._config.player,
                    "seed": seed,
                    "skill": self._config.skill,
                    "noise": self._config.noise,
                    "noise_frames": self._config.noise_frames,
                    "score": score,
                }
            )
        except BaseException:
            writer.abort()
            raise
        return {"frames": writer.frame_count, "score": score}

    def _play(self, seed: int, writer: storage.EpisodeWriter) -> float:
        rng = np.random.default_rng([seed, 1])  # apart from the player's, which uses the seed alone
        random_action, frames_left = None, 0
        observation, _ = self.env.reset(seed=seed)
        self.player.reset(seed)
        score, over = 0.0, False
        while not over:
            label = np.asarray(self.player.act(observation), bool)
            writer.append(observation["frame"], label, observation["state"])
            if frames_left == 0 and rng.random() < self._config.noise:
                random_action = rng.random(label.shape) < 0.5
                frames_left = self._config.noise_frames
            executed = label
            if frames_left > 0:
                executed, frames_left = random_action, frames_left - 1
            observation, reward, terminated, truncated, _ = self.env.step(executed)
            score += float(reward)
            over = terminated or truncated
        return score


def record(
    out: str | Path, config: RecordConfig, workers: int | None, console: Console, *, complete: bool = False
) -> None:
    """Records ``config.episodes`` episodes with seeds ``config.seed``, ``config.seed + 1``, ...

    Seeds that the dataset already holds for this game and player are passed over, so recording
    into an existing dataset appends new episodes. Safe to kill: only episodes in progress are lost.

    Args:
        out: the dataset's folder, created if missing.
        workers: processes; None for one a core.
        complete: record only what is missing of the seeds named, rather than as many again.
    """
    path = Path(out)
    with make_game(config.game, frame_size=config.frame_size, skill=config.skill) as env:
        game: Any = env.unwrapped
        make_player(config.player, config.game, env)  # an unknown one fails before anything is written
    with storage.recording(path, game.action_names, game.state_names):
        numbers, seeds = _existing(path, config)
        wanted = range(config.seed, config.seed + config.episodes)
        if complete:
            todo: Sequence[int] = [seed for seed in wanted if seed not in seeds]
        else:
            start = max([config.seed - 1, *(s for s in seeds if s >= config.seed)]) + 1
            todo = range(start, start + config.episodes)
        if not todo:
            return
        first = max(numbers, default=-1) + 1
        tasks = [(first + i, seed) for i, seed in enumerate(todo)]
        results = run_episodes(
            RecordSession,
            (path, config),
            tasks,
            workers or os.cpu_count() or 1,
            console,
            title=f"recording {config.game}",
            unit=("frames", lambda result: result["frames"]),
        )
    frames = sum(r["frames"] for r in results)
    scores = [r["score"] for r in results]
    console.print(
        f"recorded {len(results)} episodes, {frames:,} frames of {config.player} in {config.game} "
        f"(mean score {np.mean(scores):.0f}) into {path}"
    )


def _existing(path: Path, config: RecordConfig) -> tuple[list[int], set[int]]:
    """The numbers of all episodes there, and the seeds of those by this game and player."""
    numbers, seeds = [], set()
    for number, folder in storage.episode_paths(path):
        numbers.append(number)
        episode = storage.read_episode(number, folder)
        size = episode.arrays["frames"].shape[2:]
        if size != tuple(config.frame_size):
            raise UserError(
                f"{path} holds frames of {size[0]}x{size[1]}, not {config.frame_size[0]}x{config.frame_size[1]}: "
                "choose another --out or the same --frame-size"
            )
        attrs = episode.attrs
        if attrs.get("game") == config.game and attrs.get("player") == config.player:
            seeds.add(attrs.get("seed"))
    return numbers, seeds
