"""Returns of many episodes, played in parallel processes."""

import contextlib
import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from BC_training.common.decode import Decoding
from BC_training.common.errors import UserError
from BC_training.common.metrics import return_text
from BC_training.play.episodes import Outcome, Session, play_frames, print_restarts
from BC_training.play.players import BUILT_IN
from BC_training.play.video import VideoWriter
from BC_training.runtime.workers import run_tasks

SMALL = (72, 128)  # frames of players that do not look at them


class RolloutSession(Session):
    def __init__(
        self, game: str, player: str, video: Path | None, frame_size: tuple[int, int], decoding: Decoding | None = None
    ):
        super().__init__(game, player, decoding, frame_size=frame_size, render_mode="rgb_array" if video else None)
        self._video = video

    def run(self, task: tuple[int, bool]) -> Outcome:
        """Plays ``task`` = (seed, whether to film it)."""
        outcome, restarts = self.with_restarts(lambda: self._play(*task))
        if not math.isfinite(outcome.score):
            raise UserError(
                f"{self._name}: the return of seed {task[0]} is {outcome.score}: rewards are to be finite, see to "
                "the game"
            )
        return replace(outcome, restarts=restarts)

    def _play(self, seed: int, film: bool) -> Outcome:
        frames, score = -1, 0.0
        with contextlib.ExitStack() as stack:
            writer = None
            if film and self._video is not None:
                writer = stack.enter_context(VideoWriter(self._video, self.game.fps, self.game.buttons, self.game.axes))
            for frames, frame in enumerate(play_frames(self.env, self.player, seed)):  # noqa: B007 (counts)
                score = frame.score
                if writer is not None and frame.action is not None:
                    image: Any = self.env.render()
                    caption = f"{Path(self._player_name).name}  seed {seed}  return {return_text(score)}"
                    writer.add(image, frame.action, caption)
        return Outcome(score, frames)


def play_episodes(
    game: str,
    player: str,
    seeds: Sequence[int],
    frame_size: tuple[int, int],
    workers: int | None,
    console: Console,
    video: Path | None = None,
    decoding: Decoding | None = None,
) -> list[Outcome]:
    """Plays one episode per seed, in parallel processes, and prints how often a game died.

    Args:
        frame_size: (H, W) of the frames that the player sees.
        workers: processes; None for one per core.
        video: where to write an MP4 of the first episode.
        decoding: replaces that of a checkpoint.
    """
    outcomes = run_tasks(
        RolloutSession,
        (game, player, video, frame_size, decoding),
        [(seed, i == 0) for i, seed in enumerate(seeds)],
        workers or os.cpu_count() or 1,
        console,
        title=f"{short_name(player)} plays",
        unit=("frames", lambda outcome: outcome.frames),
    )
    print_restarts(sum(outcome.restarts for outcome in outcomes), console)
    return outcomes


def short_name(player: str) -> str:
    return player if player in BUILT_IN else Path(player).name
