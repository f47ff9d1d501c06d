"""Films several players on one seed, side by side."""

import contextlib
import io
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageOps
from rich.console import Console
from rich.progress import track

from BC_training.common.action import at_rest
from BC_training.common.errors import UserError
from BC_training.common.files import disk_full_is_user_error
from BC_training.common.metrics import return_text
from BC_training.games import GameSpec, make_game
from BC_training.play.episodes import Session, play_frames, print_restarts
from BC_training.play.players import BUILT_IN, make_player, require_fit, require_player
from BC_training.play.say import say
from BC_training.play.video import Hud, VideoWriter, require_video
from BC_training.play.video_text import drawable, font, substitutions
from BC_training.runtime.workers import closing_on_sigterm, run_tasks
from BC_training.videos.film import Film
from BC_training.videos.rerun_file import require_rerun, write_rollouts

_SIZE = (288, 512)  # (H, W) of the frames of players that do not look at them
_WIDTH = 512  # pixels of a panel
_QUALITY = 95  # JPEG: the raw pictures of a long episode would not fit memory
_DIMMED = 0.35


class Filming:
    """A worker (``runtime/workers.py``) that lets one player after another play, and films them."""

    def __init__(self, game: str, seed: int):
        self._game, self._seed = game, seed
        self._session: Session | None = None

    def run(self, task: tuple[str, tuple[int, int]]) -> Film:
        """Films ``task`` = (player, (H, W) of its frames)."""
        player, frame_size = task
        self._session = session = Session(self._game, player, frame_size=frame_size, render_mode="rgb_array")
        film, restarts = session.with_restarts(lambda: self._play(session, player))
        film.restarts = restarts
        self.close()
        return film

    def close(self) -> None:
        if self._session is not None:
            self._session.close()
            self._session = None

    def _play(self, session: Session, player: str) -> Film:
        film = Film(player, session.game.fps, session.game.buttons, session.game.axes)
        for frame in play_frames(session.env, session.player, self._seed):
            film.pictures.append(_jpeg(session.env.render()))
            film.returns.append(frame.score)
            if frame.action is not None:
                film.actions.append(frame.action)
        return film


def film_rollouts(
    players: Sequence[str],
    game: str,
    out: Path,
    console: Console,
    *,
    seed: int = 0,
    workers: int | None = None,
    rerun: Path | None = None,
) -> list[Film]:
    """Lets players play one seed of a game, in parallel processes, and writes a video of all side by side.

    Args:
        players: "expert", "random", "noop" or a checkpoint folder each.
        workers: processes; None for one per core.
        rerun: where to write a Rerun recording of the same.

    Raises:
        UserError: unknown game or player, a checkpoint that does not fit the game, or a file that cannot be written
            (before any play).
    """
    if not players:
        raise UserError("no player is given: name some, such as --players BC_training/checkpoints/quickstart expert")
    require_video(out)
    if rerun is not None:
        require_rerun(rerun)
    GameSpec.parse(game)
    tasks = [(player, _fitting_size(player, game)) for player in players]
    films: list[Film] = run_tasks(
        Filming,
        (game, seed),
        tasks,
        workers or os.cpu_count() or 1,
        console,
        title=f"{len(players)} players play",
        unit=("frames", len),
    )
    length = max(map(len, films)) + 1
    pictures = track(compose(films), "drawing", length, console=console, transient=True)
    with disk_full_is_user_error(out), VideoWriter(out, films[0].fps) as writer:
        for picture in pictures:
            writer.add_picture(picture)
    labels = [label(player) for player in players]
    if note := substitutions(labels, "players"):
        say(console, note, style="yellow")
    if rerun is not None:
        with disk_full_is_user_error(rerun):
            numbered = [f"{i + 1} {name}" for i, name in enumerate(labels)]  # one may play twice
            write_rollouts(rerun, films, numbered)
    print_restarts(sum(film.restarts for film in films), console)
    scores = ", ".join(f"{name} {return_text(film.returns[-1])}" for name, film in zip(labels, films, strict=True))
    written = f"{out} and {rerun}" if rerun is not None else f"{out}"
    say(console, f"{game}, seed {seed}: {scores}; written to {written}", highlight=False)
    return films


def _fitting_size(player: str, game: str) -> tuple[int, int]:
    """(H, W) of a player's frames; raises a UserError for an unknown player or one that does not fit the game."""
    inputs, size = None, _SIZE
    require_player(player)
    if player not in BUILT_IN:
        from BC_training.training import checkpoint  # here: the processes of scripted players need no JAX

        inputs = checkpoint.read(player).inputs
        size = inputs.recorded_size
    with closing_on_sigterm(), contextlib.closing(make_game(game, frame_size=size)) as env:
        if inputs is not None:
            require_fit(player, inputs, env)
        else:
            make_player(player, game, env)
    return size


def label(player: str) -> str:
    """A player's short name; a checkpoint's is its run, and its place in the run where that was given."""
    parts = Path(player).parts
    first = len(parts) - 1
    while first > 0 and (parts[first] in ("best", "last") or parts[first].isdigit()):
        first -= 1
    return "/".join(parts[first:])


def compose(films: Sequence[Film]) -> Iterator[np.ndarray]:
    """The pictures of the video, uint8 [H, W, 3] of one size: one more than the longest film has frames.

    A film that is over shows its last picture, dimmed, with its final return.
    """
    labels = drawable([label(film.player) for film in films])
    huds = [Hud(film.buttons, film.axes) for film in films]
    columns = len(films) if len(films) <= 3 else 2 if len(films) == 4 else 3
    with Image.open(io.BytesIO(films[0].pictures[0])) as first:
        size = _WIDTH, 2 * round(_WIDTH * first.height / first.width / 2)
    for t in range(max(map(len, films)) + 1):
        panels = [_panel(film, name, hud, t, size) for film, name, hud in zip(films, labels, huds, strict=True)]
        panels += [np.zeros_like(panels[0])] * (-len(panels) % columns)
        rows = [np.concatenate(panels[i : i + columns], axis=1) for i in range(0, len(panels), columns)]
        yield np.concatenate(rows)


def _panel(film: Film, name: str, hud: Hud, t: int, size: tuple[int, int]) -> np.ndarray:
    """A film's part of picture ``t``."""
    is_over = t >= len(film)
    with Image.open(io.BytesIO(film.pictures[min(t, len(film))])) as picture:
        image: Any = ImageOps.pad(picture.convert("RGB"), size)
    score = film.returns[min(t, len(film))]
    if is_over:
        image = image.point(lambda value: int(value * _DIMMED))
        seconds = len(film) / film.fps
        text = f"final return {return_text(score)}\nafter {seconds:.1f} s"
        place = (size[0] // 2, size[1] // 2)
        ImageDraw.Draw(image).text(place, text, font=font(20), anchor="mm", align="center")
    action = at_rest(len(film.buttons), len(film.axes)) if is_over else film.actions[t]
    return hud.draw(np.asarray(image), action, f"{name}   return {return_text(score)}")


def _jpeg(image: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=_QUALITY, subsampling=0)
    return file.getvalue()
