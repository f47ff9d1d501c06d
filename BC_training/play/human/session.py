"""A person's recording session: one window, and episodes that they start, discard or cut short."""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gymnasium
import numpy as np
from rich.console import Console

from BC_training.common.errors import GameDied, UserError, unknown
from BC_training.common.keybinds.play_keys import PlayKeys, play_keys
from BC_training.common.metrics import return_text
from BC_training.common.schema import RecordConfig
from BC_training.common.storage.writer import EpisodeWriter
from BC_training.games import make_game
from BC_training.play.episodes import Outcome, play_frames
from BC_training.play.human.options import UNFINISHED, PersonOptions
from BC_training.play.players import make_player
from BC_training.play.say import say
from BC_training.runtime.workers import closing_on_sigterm

if TYPE_CHECKING:
    from BC_training.play.human.person import Person


def require_keys(env: gymnasium.Env, config: RecordConfig, options: PersonOptions) -> PlayKeys:
    """The keys of a game; raises a UserError where they do not fit it, or windows cannot be opened here."""
    if options.unfinished not in UNFINISHED:
        raise unknown("answer to --unfinished", options.unfinished, UNFINISHED)
    game: Any = env.unwrapped
    keys = play_keys(options.keybinds, game.buttons, game.axes, options.takeover if config.is_takeover else None)
    try:
        import pygame

        from BC_training.play.human.window import require_display
    except ImportError as error:
        raise UserError("a person plays in a window, which needs another package: uv sync --extra window") from error
    require_display()
    pygame.display.quit()
    return keys


def record_by_person(
    out: Path,
    config: RecordConfig,
    tasks: Sequence[tuple[int, int]],
    options: PersonOptions,
    attributes: dict[str, Any],
    console: Console,
) -> list[Outcome]:
    """Records ``tasks``, each an (episode number, seed), until they are done or the person quits.

    An episode is committed when it ends; in progress it is lost with the process. Beside ``attributes`` it has
    "late_frames", their number; "unfinished" where the person cut it short; and of a takeover "human_frames", the
    [first, last] frames of each stretch in which the person acted; the labels of the others are the player's own.

    Args:
        out: the dataset, which is open for recording.

    Raises:
        UserError: no display, keys that do not fit, or a game that died; the episodes before are kept.
    """
    import zarr  # noqa: F401  # now, and not while the game runs

    done: list[tuple[Path, Outcome]] = []
    with closing_on_sigterm(), _sitting(config, tasks[0][1], options) as (env, person):
        while len(done) < len(tasks):
            number, seed = tasks[len(done)]
            person.episode = f"episode {len(done) + 1} of {len(tasks)}"
            writer = EpisodeWriter(out, number, env.unwrapped.fps if config.video else None)  # pyright: ignore[reportAttributeAccessIssue]
            episode, ended = _play(writer, env, person, seed, attributes)
            if episode is None and not ended and not person.by_person:  # between two episodes
                remove_episode(done.pop()[0])
            if episode is not None:
                done.append(episode)
                folder, outcome = episode
                say(console, f"{folder.name}: {outcome.frames} frames, score {return_text(outcome.score)}")
            if ended:
                break
            person.note = f"{done[-1][0].name} is kept, score {return_text(done[-1][1].score)}; " if done else ""
    return [outcome for _, outcome in done]


@contextlib.contextmanager
def _sitting(config: RecordConfig, seed: int, options: PersonOptions) -> Iterator[tuple[gymnasium.Env, "Person"]]:
    """Opens the game and the window."""
    with contextlib.closing(make_game(config.game, frame_size=config.frame_size, render_mode="rgb_array")) as env:
        keys = require_keys(env, config, options)
        from BC_training.play.human.person import Person
        from BC_training.play.human.window import Window

        policy = make_player(config.player, config.game, env) if config.is_takeover else None
        env.reset(seed=seed)
        drawn = env.render()
        size = drawn.shape[:2] if isinstance(drawn, np.ndarray) else config.frame_size
        # Games may end pygame when they are closed: the window is closed before.
        with contextlib.closing(Window(config.game, size, lines=3)) as window:
            yield env, Person(env, keys, window, policy, options)


def _play(
    writer: EpisodeWriter, env: gymnasium.Env, person: "Person", seed: int, attributes: dict[str, Any]
) -> tuple[tuple[Path, Outcome] | None, bool]:
    """Plays an episode; returns its folder and outcome, None if it is dropped, and whether the person quits."""
    from BC_training.play.human.person import Discarded, Ended

    game: Any = env.unwrapped
    ended, keep = False, True
    try:
        try:
            for frame in play_frames(env, person, seed):
                person.score = frame.score
                if frame.action is not None:
                    writer.append(frame.observation["frame"], frame.action, frame.observation["state"])
        except Ended as end:
            ended, keep = True, end.keep
            attributes = attributes | {"unfinished": True}
        except Discarded:
            keep = False
        if not keep:
            writer.abort()
            return None, ended
        more: dict[str, Any] = {"fps": game.fps, "seed": seed, "score": person.score, "late_frames": person.clock.late}
        if person.takes_over:
            more["human_frames"] = ranges(person.by_person[: writer.frame_count])
        return (writer.commit(more | attributes), Outcome(person.score, writer.frame_count)), ended
    except GameDied as error:
        writer.abort()
        raise UserError(f"{error} in the middle of an episode: those before are kept, run the command again") from error
    except BaseException:
        writer.abort()
        raise


def ranges(flags: Sequence[bool]) -> list[list[int]]:
    """[first, last] of each run of True."""
    edges = np.flatnonzero(np.diff([False, *flags, False]))
    return [[int(first), int(end) - 1] for first, end in zip(edges[::2], edges[1::2], strict=True)]


def remove_episode(episode: Path) -> None:
    """Removes an episode's folder."""
    gone = episode.with_name(f".partial-{episode.name}")
    episode.rename(gone)  # at once, so that nobody sees half of it
    shutil.rmtree(gone, ignore_errors=True)
