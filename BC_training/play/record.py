"""Records a player's episodes in a game into a dataset, labelled by the player or by another."""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
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
from BC_training.games import GameSpec, make_game
from BC_training.play.episodes import Outcome, Session, play_frames, print_restarts
from BC_training.play.players import Player, make_player
from BC_training.runtime.workers import closing_on_sigterm, run_tasks


class LabelledPlayer:
    """Acts as a player does, but for bursts of noise, and for frames in which the labeller acts in its place.

    The player acts as it does in play: one that takes previous actions sees those that it chose, not what was
    executed.

    Args:
        labeller: None where the player labels its own frames.

    Attributes:
        label: bool [A], what the labeller pressed in the last frame.
    """

    def __init__(self, player: Player, labeller: Player | None, config: RecordConfig):
        self._player, self._labeller, self._config = player, labeller, config

    def reset(self, seed: int) -> None:
        # Apart from each other, and from the players', which use the seed alone.
        self._noise_rng, self._mix_rng = np.random.default_rng([seed, 1]), np.random.default_rng([seed, 2])
        self._noise_left = 0  # frames
        self._player.reset(seed)
        if self._labeller is not None:
            self._labeller.reset(seed)

    def act(self, observation: dict[str, np.ndarray]) -> np.ndarray:
        """bool [A], what is executed."""
        self.label = executed = np.asarray(self._player.act(observation), bool)
        if self._labeller is not None:
            self.label = np.asarray(self._labeller.act(observation), bool)
            # A draw a frame, as Ross, Gordon and Bagnell (2011) have it, section 3.
            executed = self.label if self._mix_rng.random() < self._config.mix else executed
        if self._noise_left == 0 and self._noise_rng.random() < self._config.noise:
            self._noise = self._noise_rng.random(executed.shape) < 0.5
            self._noise_left = self._config.noise_frames
        if self._noise_left > 0:
            executed, self._noise_left = self._noise, self._noise_left - 1
        return executed


class RecordSession(Session):
    """One worker's game and players, writing episodes into ``out``."""

    player: LabelledPlayer

    def __init__(self, out: Path, config: RecordConfig):
        self._out, self._config = out, config
        super().__init__(config.game, config.player, frame_size=config.frame_size)

    def _make_player(self) -> LabelledPlayer:
        return _make_players(self._config, self.env)

    def run(self, task: tuple[int, int]) -> Outcome:
        """Records ``task`` = (episode number, seed)."""
        outcome, restarts = self.with_restarts(lambda: self._record(*task))
        return replace(outcome, restarts=restarts)

    def _record(self, number: int, seed: int) -> Outcome:
        writer, score = EpisodeWriter(self._out, number), 0.0
        try:
            for frame in play_frames(self.env, self.player, seed):
                score = frame.score
                if frame.buttons is not None:
                    writer.append(frame.observation["frame"], self.player.label, frame.observation["state"])
            writer.commit({"fps": self.game.fps, "seed": seed, "score": score} | _attributes(self._config))
        except BaseException:
            writer.abort()
            raise
        return Outcome(score, writer.frame_count)


def _make_players(config: RecordConfig, env: gymnasium.Env) -> LabelledPlayer:
    player, labeller = make_player(config.player, config.game, env), None
    if config.labeller != config.player:
        labeller = make_player(config.labeller, config.game, env)
    return LabelledPlayer(player, labeller, config)


def _attributes(config: RecordConfig) -> dict[str, Any]:
    """What an episode's attributes say of how it was recorded."""
    how = {name: getattr(config, name) for name in ("player", "mix", "noise", "noise_frames")}
    return how | {"game": str(GameSpec.parse(config.game)), "label": config.labeller}


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
                unit=("frames", lambda result: result.frames),
            )
    frames = sum(r.frames for r in results)
    labelled = "" if config.labeller == config.player else f", labelled by {config.labeller},"
    console.print(
        f"recorded {len(results)} episodes, {frames:,} frames of {config.player}{labelled} in {config.game} "
        f"(mean score {return_text(float(np.mean([r.score for r in results])))}) into {path}",
        soft_wrap=True,
        markup=False,
    )
    print_restarts(sum(r.restarts for r in results), console)


def require_players(config: RecordConfig) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Starts the game and its players once; returns the names of the actions and of the state values.

    Raises:
        UserError: unknown game, player or labeller, or a checkpoint that does not fit the game.
    """
    with (
        closing_on_sigterm(),
        contextlib.closing(make_game(config.game, frame_size=config.frame_size)) as env,
    ):
        game: Any = env.unwrapped
        _make_players(config, env)
        return game.action_names, game.state_names


def recorded_episodes(path: Path, config: RecordConfig) -> list[EpisodeInfo]:
    """The episodes recorded as ``config`` says, whatever their seed and frame size."""
    wanted = _attributes(config).items()
    return [e for e in existing_episodes(path) if "seed" in e.attrs and wanted <= e.attrs.items()]


def _require_frame_size(path: Path, episodes: list[EpisodeInfo], config: RecordConfig) -> None:
    for episode in episodes:
        size = episode.arrays["frames"].shape[2:]
        if size != tuple(config.frame_size):
            raise UserError(
                f"{path} holds frames of {size[0]}x{size[1]}, not {config.frame_size[0]}x{config.frame_size[1]}: "
                "choose another folder or the same frame size"
            )
