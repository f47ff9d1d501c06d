"""Closed-loop play: episodes of a player in a game, scored with confidence intervals."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from BC_training.common.errors import UserError
from BC_training.common.files import require_writable, write_whole
from BC_training.common.metrics import number, return_text
from BC_training.common.settings.evaluation import SEEDS, RolloutConfig
from BC_training.games import GameSpec, make_game
from BC_training.play.intervals import failed_text, interval_text, play_statistics, reference_statistics
from BC_training.play.players import BUILT_IN, require_player
from BC_training.play.references import reference_returns
from BC_training.play.results import PlayScores, RolloutResult
from BC_training.play.say import say
from BC_training.play.scores import SMALL, play_episodes, short_name
from BC_training.play.video import require_video
from BC_training.runtime.workers import closing_on_sigterm
from BC_training.training.seeds import seen_seeds, seen_text


@closing_on_sigterm()  # the game that is started to see whether it does is to be closed, too
def rollout(
    player: str,
    game: str,
    console: Console,
    *,
    episodes: int = 20,
    seed: int = 0,
    workers: int | None = None,
    json_file: Path | None = None,
    video: Path | None = None,
    references: dict[str, list[float]] | None = None,
    reference_means: tuple[float, float] | None = None,
    decode: Sequence[str] = (),
) -> RolloutResult:
    """Plays ``episodes`` episodes with seeds ``seed``, ``seed + 1``, ... and scores them.

    The game's random player, and its expert where it has one, play the same seeds, and

        normalized = (mean - random_mean) / (expert_mean - random_mean).

    Args:
        player: "expert", "random", "noop" or a checkpoint folder.
        game: its spec. Random and the expert play without its handicaps, such as a delay.
        workers: processes; None for one per core.
        video: where to write an MP4 of the first episode.
        references: the returns of random and the expert in these episodes, where they are known.
        reference_means: the means of random and an expert, where they are not to play.
        decode: KEY=VALUE changes of the checkpoint's decoding (``Decoding.override``).

    Raises:
        UserError: unknown game or player, a file that cannot be written (before any play), or a ``decode`` that is
            not valid or not of a checkpoint.
    """
    if episodes < 1:
        raise UserError(f"--episodes {episodes} is out of range: at least 1")
    if not 0 <= seed <= SEEDS - episodes:
        raise UserError(f"--seed {seed} is out of range: 0 or more, the last episode's below 2^32")
    if reference_means is not None and not -math.inf < reference_means[0] < reference_means[1] < math.inf:
        raise UserError(f"--reference-means {' '.join(map(str, reference_means))}: first random's, then a higher one")
    spec, seeds = GameSpec.parse(game), range(seed, seed + episodes)
    frame_size, step, decoding, seen = SMALL, None, None, {}
    require_player(player)
    if player not in BUILT_IN:
        from BC_training.training import checkpoint  # here: the processes of scripted players need no JAX

        saved = checkpoint.read(player)
        frame_size, step = saved.inputs.recorded_size, saved.step
        seen = seen_seeds(saved, str(spec), seeds)
        decoding = saved.decoding.override(decode) if decode else saved.decoding
    elif decode:
        raise UserError(f"--decode is for checkpoints: the player '{player}' has no probabilities to decode")
    elif video is not None:
        frame_size = (288, 512)
    make_game(spec, frame_size=frame_size).close()  # one that does not start fails here
    if json_file is not None:
        require_writable(json_file)
    if video is not None:
        require_video(video)
    outcomes = play_episodes(str(spec), player, seeds, frame_size, workers, console, video, decoding)
    returns = [outcome.score for outcome in outcomes]
    is_reference = reference_means is None and spec == spec.without_handicaps
    own = {player: returns} if is_reference else {}
    if references is None:
        references = reference_returns(spec, seeds, workers, console, reference_means, own)
    of_references = reference_statistics(references)
    scores = of_references[player] if player in own and player in references else play_statistics(returns, references)
    random, expert = of_references["random"], of_references.get("expert")
    result = RolloutResult(
        **vars(scores),
        game=str(spec),
        player=player,
        step=step,
        decoding=decoding,
        episodes=episodes,
        seed=seed,
        returns=returns,
        references=references,
        restarts=sum(outcome.restarts for outcome in outcomes),
        random_mean=random.mean,
        random_ci95=random.ci95,
        expert_mean=expert and expert.mean,
        expert_ci95=expert and expert.ci95,
        seen=seen,
        video=None if video is None else str(video),
        reference_means=reference_means,
    )
    rows = [(who if reference_means is None else f"{who}, as given", row) for who, row in of_references.items()]
    _print_result(result, [(", ".join([short_name(player), *decode]), scores), *rows], console)
    if seen:
        say(console, seen_text(seen, episodes), style="yellow")
    if json_file is not None:
        write_whole(json_file, json.dumps(result.to_dict(), indent=2) + "\n")
    return result


class Benchmark:
    """The episodes on which the checkpoints of one training are scored, always the same.

    Args:
        options: the game, and ``validation_seed``, the first episode's.
    """

    def __init__(self, options: RolloutConfig | None, workers: int | None, console: Console):
        self._options, self._workers, self._console = options, workers, console
        self._references: dict[str, list[float]] | None = None  # returns of random and the expert

    def score(self, folder: Path) -> dict[str, float]:
        """Lets a checkpoint play, and the first time also random and the expert where their returns are not known.

        Returns:
            mean (return), ci95_low, ci95_high, random_mean, expert_mean, normalized, failed (episodes) and episodes,
            each where it has a value.
        """
        from BC_training.training import checkpoint  # here: the processes of scripted players need no JAX

        assert self._options is not None, "there is no play"
        game, first = GameSpec.parse(self._options.known_game), self._options.validation_seed
        seeds = range(first, first + self._options.episodes)
        if self._references is None:
            means = self._options.reference_means
            self._references = reference_returns(game, seeds, self._workers, self._console, means)
        size = checkpoint.read(folder).inputs.recorded_size
        outcomes = play_episodes(str(game), str(folder), seeds, size, self._workers, self._console)
        found = play_statistics([outcome.score for outcome in outcomes], self._references)
        scores = {key: getattr(found, key) for key in ("mean", "normalized", "failed")}
        scores |= {f"{who}_mean": float(np.mean(values)) for who, values in self._references.items()}
        scores |= dict(zip(("ci95_low", "ci95_high"), found.ci95 or (), strict=False)) | {"episodes": len(outcomes)}
        return {key: value for key, value in scores.items() if value is not None}


def _print_result(result: RolloutResult, scores: Sequence[tuple[str, PlayScores]], console: Console) -> None:
    table = Table(
        title=f"{result.game}, seeds {result.seed} to {result.seed + result.episodes - 1}; with 95 % intervals",
        title_justify="left",
        box=box.SIMPLE_HEAD,
    )
    table.add_column("player")
    for heading in ("mean return", "normalized", "failed"):
        table.add_column(heading, justify="right")
    for who, row in scores:
        table.add_row(
            Text(who),
            return_text(row.mean) + interval_text(row.ci95, return_text),
            number(row.normalized) + interval_text(row.normalized_ci95, number),
            failed_text(row.failed, row.failed_ci95, result.episodes),
        )
    console.print(table)
