"""Closed-loop play: episodes of a player in a game, scored with confidence intervals."""

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from BC_training.common.decode import Decoding
from BC_training.common.errors import UserError, unknown
from BC_training.common.files import require_writable, write_whole
from BC_training.common.metrics import number, return_text
from BC_training.common.settings.evaluation import SEEDS, RolloutConfig
from BC_training.games import make_game
from BC_training.play.episodes import Session, say_restarts
from BC_training.play.intervals import failed_text, interval_text, play_statistics, reference_statistics
from BC_training.play.players import BUILT_IN, EXPERTS
from BC_training.play.video import VideoWriter, require_video
from BC_training.runtime.workers import run_tasks
from BC_training.training.seeds import seen_seeds, seen_text

SMALL = (72, 128)  # frames of players that do not look at them
_OF_REFERENCES = tuple((who, key) for who in ("random", "expert") for key in ("mean", "ci95"))


@dataclass(frozen=True)
class Outcome:
    """One episode: its return, its frames, and how often the game died and was restarted."""

    score: float
    frames: int
    restarts: int


class RolloutSession(Session):
    """One worker's game and player."""

    def __init__(
        self, game: str, player: str, video: Path | None, options: dict[str, Any], decoding: Decoding | None = None
    ):
        super().__init__(game, player, decoding, render_mode="rgb_array" if video else None, **options)
        self._video = video

    def run(self, task: tuple[int, bool]) -> Outcome:
        """Plays ``task`` = (seed, whether to film it)."""
        (score, frames), restarts = self.surviving(lambda: self._play(*task))
        if not math.isfinite(score):
            raise UserError(
                f"{self._name}: the return of seed {task[0]} is {score}: rewards are to be finite, see to the game"
            )
        return Outcome(score, frames, restarts)

    def _play(self, seed: int, film: bool) -> tuple[float, int]:
        writer = None
        if film and self._video is not None:
            writer = VideoWriter(self._video, self.game.fps, self.game.action_names)
        observation, _ = self.env.reset(seed=seed)
        self.player.reset(seed)
        score, frames, over = 0.0, 0, False
        try:
            while not over:
                action = np.asarray(self.player.act(observation), bool)
                if writer is not None:
                    image: Any = self.env.render()
                    writer.add(
                        image, action, f"{Path(self._player_name).name}  seed {seed}  return {return_text(score)}"
                    )
                observation, reward, terminated, truncated, _ = self.env.step(action)
                score, frames, over = score + float(reward), frames + 1, terminated or truncated
        finally:
            if writer is not None:
                writer.close()
        return score, frames


def rollout(
    player: str,
    game: str,
    console: Console,
    *,
    episodes: int = 20,
    seed: int = 0,
    skill: int = 3,
    delay: int = 0,
    workers: int | None = None,
    json_file: Path | None = None,
    video: Path | None = None,
    references: dict[str, list[float]] | None = None,
    decode: Sequence[str] = (),
) -> dict[str, Any]:
    """Plays ``episodes`` episodes with seeds ``seed``, ``seed + 1``, ... and scores them.

    The game's random player, and its expert where it has one, play the same seeds, and

        normalized = (mean - random_mean) / (expert_mean - random_mean).

    Args:
        player: "expert", "random", "noop" or a checkpoint folder.
        delay: engine tics by which the player's actions come late; random and the expert play without.
        workers: processes; None for one a core.
        json_file: where to write the result.
        video: where to write an MP4 of the first episode.
        references: the returns of random and the expert in these episodes, where they are known.
        decode: KEY=VALUE, what to change of the checkpoint's decoding here (``Decoding.override``).

    Returns:
        game, player, step and decoding (of a checkpoint; None for other players), episodes, seed, skill, delay,
        returns, references (random's and the expert's), restarts (of a game that died); mean, ci95, normalized,
        normalized_ci95, failed, failed_ci95 of ``play_statistics``; random_mean, random_ci95, expert_mean,
        expert_ci95 (None without expert); seen (``seen_seeds`` of a checkpoint), video (its file as given; None
        without).

    Raises:
        UserError: unknown game or player, a file that could not be written (found first), or
            ``decode`` with another player than a checkpoint, or not valid.
    """
    if episodes < 1:
        raise UserError(f"--episodes {episodes} is out of range: at least 1")
    if not 0 <= seed <= SEEDS - episodes:
        raise UserError(f"--seed {seed} is out of range: 0 or more, the last episode's below 2^32")
    frame_size, step, decoding, seen = SMALL, None, None, {}
    if player not in BUILT_IN:
        if not Path(player).exists():
            raise unknown("player", player, BUILT_IN, "or give the folder of a checkpoint")
        from BC_training.training import checkpoint  # here: the processes of scripted players need no JAX

        saved = checkpoint.read(player)
        frame_size, step = saved.inputs.recorded_size, saved.step
        seen = seen_seeds(saved, game, skill, range(seed, seed + episodes))
        decoding = saved.decoding.override(decode) if decode else saved.decoding
    elif decode:
        raise UserError(f"--decode is for checkpoints: the player '{player}' has no probabilities to decode")
    elif video is not None:
        frame_size = (288, 512)
    make_game(game, frame_size=frame_size, skill=skill, delay=delay).close()  # an unknown one fails here
    if json_file is not None:
        require_writable(json_file)
    if video is not None:
        require_video(video)

    def play(who: str, size: tuple[int, int], delay: int = 0, film: Path | None = None) -> list[float]:
        options = {"frame_size": size, "skill": skill, "delay": delay}
        rules = decoding if who == player else None
        outcomes = play_episodes(game, who, range(seed, seed + episodes), options, workers, console, film, rules)
        restarts.append(sum(outcome.restarts for outcome in outcomes))
        return [outcome.score for outcome in outcomes]

    restarts: list[int] = []
    returns = play(player, frame_size, delay, video)
    if references is None:
        references = {who: returns if who == player and not delay else play(who, SMALL) for who in _references(game)}
    scores, others = play_statistics(returns, references), reference_statistics(references)
    if player in references and not delay:
        scores = others[player]
    result = {
        "game": game,
        "player": player,
        "step": step,
        "decoding": None if decoding is None else decoding.to_dict(),
        "episodes": episodes,
        "seed": seed,
        "skill": skill,
        "delay": delay,
        "returns": returns,
        "references": references,
        "restarts": sum(restarts),
        **scores,
        **{f"{who}_{key}": others[who][key] if who in others else None for who, key in _OF_REFERENCES},
        "seen": seen,
        "video": None if video is None else str(video),
    }
    played = ", ".join([_short(player), *([f"delay {delay}"] if delay else []), *decode])
    _print_result(result, [(played, scores), *others.items()], console)
    say_restarts(result["restarts"], console)
    if seen:
        console.print(seen_text(seen, episodes), style="yellow", soft_wrap=True, markup=False)
    if json_file is not None:
        write_whole(json_file, json.dumps(result, indent=2) + "\n")
    return result


def play_episodes(
    game: str,
    player: str,
    seeds: Sequence[int],
    options: dict[str, Any],
    workers: int | None,
    console: Console,
    video: Path | None = None,
    decoding: Decoding | None = None,
) -> list[Outcome]:
    """Plays one episode a seed, in parallel processes.

    Args:
        options: of ``make_game``.
        workers: processes; None for one a core.
        video: where to write an MP4 of the first episode.
        decoding: of a checkpoint, in place of its own.
    """
    return run_tasks(
        RolloutSession,
        (game, player, video, options, decoding),
        [(seed, i == 0) for i, seed in enumerate(seeds)],
        workers or os.cpu_count() or 1,
        console,
        title=f"{_short(player)} plays",
        unit=("frames", lambda outcome: outcome.frames),
    )


class Benchmark:
    """The episodes on which the checkpoints of one training are scored, always the same.

    Args:
        options: the game, and ``validation_seed``, the first episode's.
    """

    def __init__(self, options: RolloutConfig | None, workers: int | None, console: Console):
        self._options, self._workers, self._console = options, workers, console
        self._references: dict[str, list[float]] | None = None  # returns of random and the expert

    def score(self, folder: Path) -> dict[str, float]:
        """Lets a checkpoint play; the first time random and the expert, too.

        Returns:
            mean (return), ci95_low, ci95_high, random_mean, expert_mean, normalized, failed (episodes), and
            episodes; not what has no value.
        """
        from BC_training.training import checkpoint  # here: the processes of scripted players need no JAX

        assert self._options is not None, "there is no play"
        if self._references is None:
            self._references = {who: self._play(who, SMALL) for who in _references(self._options.game)}
        returns = self._play(str(folder), checkpoint.read(folder).inputs.recorded_size)
        found = play_statistics(returns, self._references)
        scores = {key: found[key] for key in ("mean", "normalized", "failed")}
        scores |= {f"{who}_mean": float(np.mean(values)) for who, values in self._references.items()}
        scores |= dict(zip(("ci95_low", "ci95_high"), found["ci95"] or (), strict=False)) | {"episodes": len(returns)}
        return {key: value for key, value in scores.items() if value is not None}

    def _play(self, player: str, frame_size: tuple[int, int]) -> list[float]:
        assert self._options is not None, "there is no play"
        options, first = self._options, self._options.validation_seed
        outcomes = play_episodes(
            options.game,
            player,
            range(first, first + options.episodes),
            {"frame_size": frame_size, "skill": options.skill},
            self._workers,
            self._console,
        )
        say_restarts(sum(outcome.restarts for outcome in outcomes), self._console)
        return [outcome.score for outcome in outcomes]


def _references(game: str) -> list[str]:
    return ["random", "expert"] if game in EXPERTS else ["random"]


def _short(player: str) -> str:
    return player if player in BUILT_IN else Path(player).name


def _print_result(result: dict[str, Any], scores: Sequence[tuple[str, dict[str, Any]]], console: Console) -> None:
    table = Table(
        title=f"{result['game']}, skill {result['skill']}, seeds {result['seed']} to "
        f"{result['seed'] + result['episodes'] - 1}; with 95 % intervals",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("player")
    for heading in ("mean return", "normalized", "failed"):
        table.add_column(heading, justify="right")
    for who, row in scores:
        table.add_row(
            Text(who),
            return_text(row["mean"]) + interval_text(row["ci95"], return_text),
            number(row["normalized"]) + interval_text(row["normalized_ci95"], number),
            failed_text(row, result["episodes"]),
        )
    console.print(table)
