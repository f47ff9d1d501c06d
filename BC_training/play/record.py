"""Records a player's episodes in a game into a dataset, labelled by the player or by another."""

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from rich.console import Console

from BC_training.common.errors import UserError
from BC_training.common.files import disk_full_is_user_error
from BC_training.common.metrics import return_text
from BC_training.common.schema import RecordConfig
from BC_training.common.storage.metadata import EpisodeInfo
from BC_training.common.storage.store import LocalStore
from BC_training.common.storage.writer import EpisodeWriter, existing_episodes, next_number, recording
from BC_training.games import make_game
from BC_training.play.episodes import Session, say_restarts
from BC_training.play.players import Player, make_player
from BC_training.runtime.workers import closing_on_sigterm, run_tasks


class RecordSession(Session):
    """One worker's game, player and labeller, writing episodes into ``out``.

    With a labeller of its own a frame's label is what that one would press there. The player acts as
    it does in play: one that takes previous actions sees those that it chose, not what was executed.
    """

    def __init__(self, out: Path, config: RecordConfig):
        self._out, self._config = out, config
        super().__init__(config.game, config.player, frame_size=config.frame_size, skill=config.skill)

    def _open(self) -> None:
        super()._open()
        try:
            self._labeller = _make_labeller(self._config, self.env)
        except BaseException:
            self.env.close()
            raise

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
                    "label": self._config.labeller,
                    "mix": self._config.mix,
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
        # Apart from each other, and from the players', which use the seed alone.
        rng, mixing = np.random.default_rng([seed, 1]), np.random.default_rng([seed, 2])
        random_action, frames_left = None, 0
        observation, _ = self.env.reset(seed=seed)
        self.player.reset(seed)
        if self._labeller is not None:
            self._labeller.reset(seed)
        score, over = 0.0, False
        while not over:
            label = executed = np.asarray(self.player.act(observation), bool)
            if self._labeller is not None:
                label = np.asarray(self._labeller.act(observation), bool)
                # A draw a frame, as Ross, Gordon and Bagnell (2011) have it, section 3.
                executed = label if mixing.random() < self._config.mix else executed
            writer.append(observation["frame"], label, observation["state"])
            if frames_left == 0 and rng.random() < self._config.noise:
                random_action = rng.random(label.shape) < 0.5
                frames_left = self._config.noise_frames
            if frames_left > 0:
                executed, frames_left = random_action, frames_left - 1
            observation, reward, terminated, truncated, _ = self.env.step(executed)
            score += float(reward)
            over = terminated or truncated
        return score


def _make_labeller(config: RecordConfig, env: gymnasium.Env) -> Player | None:
    """None where the player labels."""
    return None if config.labeller == config.player else make_player(config.labeller, config.game, env)


def record(out: str | Path, config: RecordConfig, workers: int | None, console: Console) -> None:
    """Records ``config.episodes`` more episodes, appending to the dataset if it exists.

    Seeds count up from ``config.seed``, or from past the last that the dataset already holds of
    episodes recorded the same way. Safe to kill: only the episodes in progress are lost.

    Args:
        out: the dataset's folder, created if missing.
        workers: processes; None for one a core.

    Raises:
        UserError: unknown game, player or labeller, a checkpoint that does not fit the game, or a
            dataset of other actions or another frame size.
    """
    path = Path(out)
    used = {int(episode.attrs["seed"]) for episode in recorded_episodes(path, config)}
    start = max([config.seed - 1, *(seed for seed in used if seed >= config.seed)]) + 1
    _record_seeds(path, config, range(start, start + config.episodes), None, workers, console)


def record_missing(
    out: str | Path, config: RecordConfig, workers: int | None, console: Console, first_number: int | None = None
) -> None:
    """Records what the dataset lacks of the episodes that ``config`` names.

    A dataset with episodes, but none recorded as ``config`` says, is left alone: it is somebody's
    own. Other arguments and errors are those of ``record``, of a complete dataset too.

    Args:
        first_number: of the episode of ``config.seed``, in a dataset to which ``config``'s episodes are
            to be added.
    """
    path = Path(out)
    recorded = recorded_episodes(path, config)
    _require_frame_size(path, recorded, config)
    used = {int(episode.attrs["seed"]) for episode in recorded}
    if first_number is None and path.exists() and not used and LocalStore(path).episode_names():
        console.print(
            f"{path} is used as it is: none of its episodes was recorded as dataset.record says",
            soft_wrap=True,
            markup=False,
        )
        return
    wanted = range(config.seed, config.seed + config.episodes)
    missing = [seed for seed in wanted if seed not in used]
    if missing:
        there = config.episodes - len(missing)
        console.print(
            f"{path}: {there} of {config.episodes} episodes are there, recording the rest", soft_wrap=True, markup=False
        )
        # As if nothing had interrupted it: the numbers decide on the split and the order of training.
        numbers = [seed - config.seed + (first_number or 0) for seed in missing]
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
    action_names, state_names = require_players(config)
    _require_frame_size(path, existing_episodes(path), config)
    with recording(path, action_names, state_names):
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
    labelled = "" if config.labeller == config.player else f", labelled by {config.labeller},"
    console.print(
        f"recorded {len(results)} episodes, {frames:,} frames of {config.player}{labelled} in {config.game} "
        f"(mean score {return_text(float(np.mean([r['score'] for r in results])))}) into {path}",
        soft_wrap=True,
        markup=False,
    )
    say_restarts(sum(r["restarts"] for r in results), console)


def require_players(config: RecordConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Starts the game and its players once; returns the names of the actions and of the state values.

    Raises:
        UserError: unknown game, player or labeller, or a checkpoint that does not fit the game.
    """
    with (
        closing_on_sigterm(),
        contextlib.closing(make_game(config.game, frame_size=config.frame_size, skill=config.skill)) as env,
    ):
        game: Any = env.unwrapped
        make_player(config.player, config.game, env)
        _make_labeller(config, env)
        return game.action_names, game.state_names


def recorded_episodes(path: Path, config: RecordConfig) -> list[EpisodeInfo]:
    """The episodes recorded as ``config`` says, whatever their seed and frame size."""
    wanted = {s: getattr(config, s) for s in ("game", "player", "skill", "noise", "noise_frames", "mix")}
    wanted["label"] = config.labeller

    def is_wanted(attrs: dict[str, Any]) -> bool:
        older = {"label": attrs.get("player"), "mix": 0.0}  # which had no other labeller
        return "seed" in attrs and wanted.items() <= (older | attrs).items()

    return [episode for episode in existing_episodes(path) if is_wanted(episode.attrs)]


def _require_frame_size(path: Path, episodes: list[EpisodeInfo], config: RecordConfig) -> None:
    for episode in episodes:
        size = episode.arrays["frames"].shape[2:]
        if size != tuple(config.frame_size):
            raise UserError(
                f"{path} holds frames of {size[0]}x{size[1]}, not {config.frame_size[0]}x{config.frame_size[1]}: "
                "choose another folder or the same frame size"
            )
