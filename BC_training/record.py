"""Records a player's episodes in a game into a dataset."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from BC_training.common import storage
from BC_training.common.errors import UserError, disk_full_is_user_error
from BC_training.common.metrics import return_text
from BC_training.common.schema import RecordConfig
from BC_training.common.store import LocalStore
from BC_training.common.workers import run_tasks
from BC_training.common.writer import EpisodeWriter, next_number, recording
from BC_training.games import make_game
from BC_training.games.episodes import Session, say_restarts
from BC_training.games.players import make_player


class RecordSession(Session):
    """One worker's game and player, writing episodes into ``out``."""

    def __init__(self, out: Path, config: RecordConfig):
        super().__init__(config.game, config.player, frame_size=config.frame_size, skill=config.skill)
        self._out, self._config = out, config

    def run(self, task: tuple[int, int]) -> dict[str, Any]:
        """Records ``task`` = (episode number, seed); returns its length, its score and the game's restarts."""
        result, restarts = self.surviving(lambda: self._record(*task))
        return result | {"restarts": restarts}

    def _record(self, number: int, seed: int) -> dict[str, Any]:
        writer = EpisodeWriter(self._out, number)
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

    def _play(self, seed: int, writer: EpisodeWriter) -> float:
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


def record(out: str | Path, config: RecordConfig, workers: int | None, console: Console) -> None:
    """Records ``config.episodes`` more episodes, appending to the dataset if it exists.

    Seeds count up from ``config.seed``, or from past the last that the dataset already holds of
    episodes recorded the same way. Safe to kill: only the episodes in progress are lost.

    Args:
        out: the dataset's folder, created if missing.
        workers: processes; None for one a core.

    Raises:
        UserError: unknown game or player, or a dataset of other actions or another frame size.
    """
    path = Path(out)
    used = {int(episode.attrs["seed"]) for episode in _recorded(path, config)}
    start = max([config.seed - 1, *(seed for seed in used if seed >= config.seed)]) + 1
    _record_seeds(path, config, range(start, start + config.episodes), None, workers, console)


def record_missing(out: str | Path, config: RecordConfig, workers: int | None, console: Console) -> None:
    """Records what the dataset lacks of the episodes that ``config`` names.

    A dataset with episodes, but none recorded as ``config`` says, is left alone: it is somebody's
    own. Arguments and errors are those of ``record``, of a complete dataset too.
    """
    path = Path(out)
    recorded = _recorded(path, config)
    _require_frame_size(path, recorded, config)
    used = {int(episode.attrs["seed"]) for episode in recorded}
    if path.exists() and not used and LocalStore(path).episode_names():
        console.print(
            f"{path} is used as it is: none of its episodes was recorded as dataset.record says", soft_wrap=True
        )
        return
    wanted = range(config.seed, config.seed + config.episodes)
    missing = [seed for seed in wanted if seed not in used]
    if missing:
        there = config.episodes - len(missing)
        console.print(f"{path}: {there} of {config.episodes} episodes are there, recording the rest", soft_wrap=True)
        # As if nothing had interrupted it: the numbers decide on the split and the order of training.
        numbers = [seed - config.seed for seed in missing]
        _record_seeds(path, config, missing, numbers, workers, console)


def _record_seeds(
    path: Path,
    config: RecordConfig,
    seeds: Sequence[int],
    numbers: Sequence[int] | None,
    workers: int | None,
    console: Console,
) -> None:
    """Records ``seeds`` as the episodes ``numbers``, or after the last episode: for None, or where one is taken."""
    env = make_game(config.game, frame_size=config.frame_size, skill=config.skill)
    try:
        game: Any = env.unwrapped
        make_player(config.player, config.game, env)  # an unknown one fails before anything is written
    finally:
        env.close()
    _require_frame_size(path, _readable_episodes(path), config)
    with recording(path, game.action_names, game.state_names):
        if numbers is None or any((path / f"episode_{number}").exists() for number in numbers):
            numbers = range(first := next_number(path), first + len(seeds))
        with disk_full_is_user_error(path):
            results = run_tasks(
                RecordSession,
                (path, config),
                list(zip(numbers, seeds, strict=True)),
                workers or os.cpu_count() or 1,
                console,
                title="recording",
                unit=("frames", lambda result: result["frames"]),
            )
    frames = sum(r["frames"] for r in results)
    console.print(
        f"recorded {len(results)} episodes, {frames:,} frames of {config.player} in {config.game} "
        f"(mean score {return_text(float(np.mean([r['score'] for r in results])))}) into {path}",
        soft_wrap=True,
    )
    say_restarts(sum(r["restarts"] for r in results), console)


def _recorded(path: Path, config: RecordConfig) -> list[storage.EpisodeInfo]:
    """The episodes recorded as ``config`` says, whatever their seed and frame size."""
    settings = ("game", "player", "skill", "noise", "noise_frames")
    return [
        episode
        for episode in _readable_episodes(path)
        if "seed" in episode.attrs and all(episode.attrs.get(s) == getattr(config, s) for s in settings)
    ]


def _require_frame_size(path: Path, episodes: list[storage.EpisodeInfo], config: RecordConfig) -> None:
    for episode in episodes:
        size = episode.arrays["frames"].shape[2:]
        if size != tuple(config.frame_size):
            raise UserError(
                f"{path} holds frames of {size[0]}x{size[1]}, not {config.frame_size[0]}x{config.frame_size[1]}: "
                "choose another folder or the same frame size"
            )


def _readable_episodes(path: Path) -> list[storage.EpisodeInfo]:
    """None where there is no dataset. Faulty ones left out: opening it for training reports those."""
    if not path.exists():
        return []
    store = LocalStore(path)
    storage.read_root(store)
    found = storage.read_episodes(store, store.episode_names())
    return [episode for episode in found if isinstance(episode, storage.EpisodeInfo)]
