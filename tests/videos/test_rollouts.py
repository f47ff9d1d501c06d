"""Players side by side, in the real game."""

import dataclasses
import io
from io import StringIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from untrained import save_run
from videos import decode

from BC_training.common.decode import Decoding
from BC_training.common.errors import UserError
from BC_training.play.rollout import rollout
from BC_training.training import checkpoint
from BC_training.training.decoding_file import write_decoding
from BC_training.videos.film import Film
from BC_training.videos.rollouts import compose, film_rollouts, label

QUIET = Console(file=StringIO())
GAME = "doom/basic"


def test_players_play_the_seed_to_its_end(tmp_path):
    chunk = pytest.importorskip("rerun.chunk")
    films = film_rollouts(
        ["expert", "noop"], GAME, tmp_path / "r.mp4", QUIET, seed=3, workers=1, rerun=tmp_path / "r.rrd"
    )
    for film in films:
        scored = rollout(film.player, GAME, QUIET, episodes=1, seed=3, workers=1)
        assert film.returns[-1] == scored.returns[0]
    assert len(films[0]) < len(films[1])
    pictures, rate = decode(tmp_path / "r.mp4")
    assert rate == 17.5
    assert len(pictures) == len(films[1]) + 1
    assert pictures.shape[2] == 2 * 512
    expert, noop = pictures[:, :280, :512].mean(axis=(1, 2, 3)), pictures[:, :280, 512:].mean(axis=(1, 2, 3))
    assert expert[len(films[0]) :].max() < 0.6 * expert[: len(films[0])].min()  # dimmed once it has finished
    assert noop[:-1].min() > 1.5 * noop[-1]
    frames = [
        part.entity_path
        for part in chunk.RrdReader(tmp_path / "r.rrd").stream()
        for _ in range(part.num_rows)
        if part.entity_path.endswith("/frame")
    ]
    assert sorted(map(frames.count, set(frames))) == sorted(len(film) + 1 for film in films)


@pytest.mark.slow
def test_checkpoints_play_by_their_own_rules_on_frames_of_their_own_size(tmp_path, make_config, make_inputs):
    buttons = ("move_left", "move_right", "attack")
    runs = {}
    for held, size in (("move_left", (36, 64)), ("attack", (72, 128))):
        inputs = dataclasses.replace(make_inputs(recorded_size=size), action_names=buttons)
        run = save_run(tmp_path / held, make_config(), inputs)
        thresholds = {name: 0.001 if name == held else 0.999 for name in buttons}
        write_decoding(checkpoint.find(run), Decoding(thresholds))
        runs[str(run)] = [name == held for name in buttons]
    for film in film_rollouts(list(runs), GAME, tmp_path / "r.mp4", QUIET, workers=1):
        assert np.array(film.actions).tolist() == [runs[film.player]] * len(film)


def film(player: str, length: int, size: tuple[int, int] = (36, 64), value: int = 200) -> Film:
    file = io.BytesIO()
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(file, "JPEG")
    actions = [np.array([True, False])] * length
    returns = [float(t) for t in range(length + 1)]
    return Film(player, 17.5, ("a", "b"), [file.getvalue()] * (length + 1), actions, returns)


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (3, 3, 1), (4, 2, 2), (5, 3, 2)])
def test_panels_are_laid_out_in_a_grid(count, columns, rows):
    pictures = list(compose([film("noop", 2 + i) for i in range(count)]))
    assert len(pictures) == count + 2
    shapes = {picture.shape for picture in pictures}
    assert len(shapes) == 1
    height, width, _ = shapes.pop()
    assert width == columns * 512
    assert height // rows == 288 + 26
    assert height % 2 == 0


def test_frames_of_other_sizes_fill_equal_panels():
    first, second = np.split(next(compose([film("a", 1, (36, 64)), film("b", 1, (144, 256))])), 2, axis=1)
    np.testing.assert_allclose(first[40:280], second[40:280], atol=2)


def test_players_have_short_names():
    run = "BC_training/checkpoints/quickstart"
    assert label("expert") == "expert"
    assert label(run) == label(f"{run}/") == "quickstart"
    assert label(f"{run}/best/120") == "quickstart/best/120"


@pytest.mark.parametrize(
    ("players", "game", "message"),
    [
        (["expret"], GAME, "did you mean 'expert'"),
        (["noop"], "doom/basik", "did you mean 'doom/basic'"),
        ([], GAME, "no player is given"),
    ],
)
def test_unknown_names_are_refused(tmp_path, players, game, message):
    with pytest.raises(UserError, match=message):
        film_rollouts(players, game, tmp_path / "r.mp4", QUIET)
    assert not list(tmp_path.iterdir())


def test_a_checkpoint_of_another_game_is_refused_listing_both(tmp_path, make_config, make_inputs):
    inputs = dataclasses.replace(make_inputs(recorded_size=(72, 128)), action_names=("up", "down", "attack"))
    run: Path = save_run(tmp_path / "run", make_config(), inputs)
    with pytest.raises(UserError, match=r"\[up, down, attack\], the game has \[move_left, move_right, attack\]"):
        film_rollouts(["noop", str(run)], GAME, tmp_path / "r.mp4", QUIET)
    assert not (tmp_path / "r.mp4").exists()
    with pytest.raises(UserError, match="cannot write"):
        film_rollouts(["nobody"], GAME, tmp_path / "no/r.mp4", QUIET)
