"""Records a player's episodes into a dataset, labelled by the player itself or by another."""

import contextlib
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from rich.console import Console

from BC_training.common.action import Action
from BC_training.common.errors import UserError
from BC_training.common.files import disk_full_is_user_error
from BC_training.common.metrics import return_text
from BC_training.common.schema import RecordConfig
from BC_training.common.storage.metadata import EpisodeInfo
from BC_training.common.storage.store import LocalStore
from BC_training.common.storage.writer import EpisodeWriter, Names, existing_episodes, next_number, recording
from BC_training.games import GameSpec, make_game
from BC_training.games.spaces import random_action
from BC_training.play.episodes import Outcome, Session, play_frames, print_restarts
from BC_training.play.human.options import PersonOptions
from BC_training.play.players import Player, make_player
from BC_training.play.say import say
from BC_training.runtime.workers import closing_on_sigterm, run_tasks


class LabelledPlayer:
    """A player with bursts of noise, and frames in which the labeller acts in its place.

    The player acts as in play: where it takes previous actions, it sees its own, not what was executed.

    Args:
        labeller: None where the player labels its own frames.
        space: the game's action space, which noise is drawn from.

    Attributes:
        label: what the labeller did in the last frame.
    """

    def __init__(self, player: Player, labeller: Player | None, config: RecordConfig, space: gymnasium.Space):
        self._player, self._labeller, self._config, self._space = player, labeller, config, space

    def reset(self, seed: int) -> None:
        # Other draws than those of the players, which use the seed alone.
        self._noise_rng, self._mix_rng = np.random.default_rng([seed, 1]), np.random.default_rng([seed, 2])
        self._noise_left = 0  # frames
        self._player.reset(seed)
        if self._labeller is not None:
            self._labeller.reset(seed)

    def act(self, observation: dict[str, np.ndarray]) -> Action:
        """What is executed."""
        self.label = executed = self._player.act(observation)
        if self._labeller is not None:
            self.label = self._labeller.act(observation)
            # A draw in each frame, as in section 3 of Ross, Gordon and Bagnell (2011).
            executed = self.label if self._mix_rng.random() < self._config.mix else executed
        if self._noise_left == 0 and self._noise_rng.random() < self._config.noise:
            self._noise = random_action(self._space, self._noise_rng)
            self._noise_left = self._config.noise_frames
        if self._noise_left > 0:
            executed, self._noise_left = self._noise, self._noise_left - 1
        return executed


class RecordSession(Session):
    """Writes episodes into ``out``."""

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
        video_fps = self.game.fps if self._config.video else None
        writer, score = EpisodeWriter(self._out, number, video_fps), 0.0
        try:
            for frame in play_frames(self.env, self.player, seed):
                score = frame.score
                if frame.action is not None:
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
    return LabelledPlayer(player, labeller, config, env.action_space)


def _attributes(config: RecordConfig) -> dict[str, Any]:
    """The attributes of an episode that describe how it was recorded."""
    how = {name: getattr(config, name) for name in ("player", "mix", "noise", "noise_frames")}
    return how | {"game": str(GameSpec.parse(config.game)), "label": config.labeller}


def record(
    out: str | Path, config: RecordConfig, workers: int | None, console: Console, person: PersonOptions | None = None
) -> None:
    """Adds ``config.episodes`` episodes to a dataset, which is created if missing.

    Seeds count up from ``config.seed``, or from the last seed that was recorded in the same way. If killed, it loses
    the episodes in progress alone.

    Args:
        out: the dataset's folder.
        workers: processes; None for one per core; a person needs one.
        person: how a person plays, who may stop before all episodes are done.

    Raises:
        UserError: unknown game, player or labeller, a checkpoint that does not fit the game, or a dataset of other
            buttons or another frame size.
    """
    path = Path(out)
    used = {int(episode.attrs["seed"]) for episode in recorded_episodes(path, config)}
    start = max([config.seed - 1, *(seed for seed in used if seed >= config.seed)]) + 1
    _record_seeds(path, config, range(start, start + config.episodes), None, workers, console, person)


def record_missing(
    out: str | Path,
    config: RecordConfig,
    workers: int | None,
    console: Console,
    first_number: int | None = None,
    person: PersonOptions | None = None,
) -> None:
    """Records the episodes of ``config`` that a dataset lacks; arguments and errors are otherwise those of ``record``.

    A person who stops earlier is a UserError, too.

    A dataset in which no episode was recorded as ``config`` says is somebody's own and left alone, unless
    ``first_number`` is given: the number of the episode of ``config.seed``.
    """
    path = Path(out)
    recorded = recorded_episodes(path, config)
    _require_frame_size(path, recorded, config)
    used = {int(episode.attrs["seed"]) for episode in recorded}
    if first_number is None and path.exists() and not used and LocalStore(path).episode_names():
        say(console, f"{path} is used as it is: none of its episodes was recorded as dataset.record says")
        return
    wanted = range(config.seed, config.seed + config.episodes)
    missing = [seed for seed in wanted if seed not in used]
    if missing:
        there = config.episodes - len(missing)
        say(console, f"{path}: {there} of {config.episodes} episodes are there, recording the rest")
        # The numbers decide the split and the order of training, so they are those of an uninterrupted recording.
        numbers = [seed - config.seed + (first_number or 0) for seed in missing]
        recorded = _record_seeds(path, config, missing, numbers, workers, console, person)
        if recorded < len(missing):
            raise UserError(
                f"{path} has {there + recorded} of {config.episodes} episodes: run the same command again to go on"
            )


def _record_seeds(
    path: Path,
    config: RecordConfig,
    seeds: Sequence[int],
    numbers: Sequence[int] | None,
    workers: int | None,
    console: Console,
    person: PersonOptions | None,
) -> int:
    """Records ``seeds`` as the episodes ``numbers``, or after the last episode where that is None or one is taken.

    Returns how many were recorded.
    """
    names = require_players(config, person)
    _require_frame_size(path, existing_episodes(path), config)
    with recording(path, names):
        if numbers is None or any((path / f"episode_{number}").exists() for number in numbers):
            numbers = range(first := next_number(path), first + len(seeds))
        tasks = list(zip(numbers, seeds, strict=True))
        with disk_full_is_user_error(path):
            if config.by_person:
                from BC_training.play.human.session import record_by_person

                options = person or PersonOptions()
                results = record_by_person(path, config, tasks, options, _attributes(config), console)
            else:
                results = run_tasks(
                    RecordSession,
                    (path, config),
                    tasks,
                    workers or os.cpu_count() or 1,
                    console,
                    title="recording",
                    unit=("frames", lambda result: result.frames),
                )
    if not results:
        say(console, "no episode was recorded")
        return 0
    frames = sum(r.frames for r in results)
    labelled = "" if config.labeller == config.player else f", labelled by {config.labeller},"
    score = return_text(float(np.mean([r.score for r in results])))
    say(
        console,
        f"recorded {len(results)} episodes, {frames:,} frames of {config.player}{labelled} in {config.game} "
        f"(mean score {score}) into {path}",
    )
    print_restarts(sum(r.restarts for r in results), console)
    return len(results)


def require_players(config: RecordConfig, person: PersonOptions | None = None) -> Names:
    """Starts the game and its players once; returns the names of the game's buttons, axes and state values.

    Raises a UserError for an unknown game, player or labeller, or a checkpoint that does not fit the game.
    """
    with closing_on_sigterm(), contextlib.closing(make_game(config.game, frame_size=config.frame_size)) as env:
        game: Any = env.unwrapped
        if config.by_person:
            from BC_training.play.human.session import require_keys  # here: it needs an extra

            require_keys(env, config, person or PersonOptions())
            if config.is_takeover:
                make_player(config.player, config.game, env)
        else:
            _make_players(config, env)
        return Names(game.buttons, game.axes, game.state_names)


def recorded_episodes(path: Path, config: RecordConfig) -> list[EpisodeInfo]:
    """The episodes recorded as ``config`` says, whatever their seed and frame size."""
    wanted = _attributes(config).items()
    return [e for e in existing_episodes(path) if "seed" in e.attrs and wanted <= e.attrs.items()]


def _require_frame_size(path: Path, episodes: list[EpisodeInfo], config: RecordConfig) -> None:
    for episode in episodes:
        size, wanted = episode.arrays["frames"].shape[2:], config.frame_size
        if size != tuple(wanted):
            raise UserError(
                f"{path} holds frames of {size[0]}x{size[1]}, not {wanted[0]}x{wanted[1]}: "
                "choose another folder or the same frame size"
            )
