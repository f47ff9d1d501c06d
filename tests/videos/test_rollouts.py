"""Players are filmed side by side, in the real game."""

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

from BC_training.common.action import Action
from BC_training.common.decode import Decoding
from BC_training.common.errors import UserError
from BC_training.games import GameSpec
from BC_training.play.references import known_returns
from BC_training.training import checkpoint
from BC_training.training.decoding_file import write_decoding
from BC_training.videos.film import Film
from BC_training.videos.rollouts import compose, film_rollouts, label

QUIET = Console(file=StringIO())
GAME = "doom/basic"


def test_players_play_the_seed_to_its_end(tmp_path):
    chunk = pytest.importorskip("rerun.chunk")
    players = ["expert", "noop"]
    films = film_rollouts(players, GAME, tmp_path / "r.mp4", QUIET, seed=3, workers=1, rerun=tmp_path / "r.rrd")
    assert [film.returns[-1:] for film in films] == [known_returns(GameSpec.parse(GAME), who, [3]) for who in players]
    assert len(films[0]) < len(films[1])
    pictures, rate = decode(tmp_path / "r.mp4")
    assert rate == 17.5
    assert len(pictures) == len(films[1]) + 1
    assert pictures.shape[2] == 2 * 512
    expert, noop = (half.mean(axis=(1, 2, 3)) for half in np.split(pictures[:, :280], 2, axis=2))
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
        assert [action.buttons.tolist() for action in film.actions] == [runs[film.player]] * len(film)


def film(player: str, length: int, size: tuple[int, int] = (36, 64), value: int = 200) -> Film:
    file = io.BytesIO()
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(file, "JPEG")
    actions = [Action.of([True, False])] * length
    returns = [float(t) for t in range(length + 1)]
    return Film(player, 17.5, ("a", "b"), (), [file.getvalue()] * (length + 1), actions, returns)


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 1, 1), (3, 3, 1), (4, 2, 2), (5, 3, 2)])
def test_panels_are_laid_out_in_a_grid(count, columns, rows):
    pictures = np.stack(list(compose([film("noop", 2 + i) for i in range(count)])))
    assert len(pictures) == count + 2
    assert pictures.shape[1:] == (rows * (288 + 26), columns * 512, 3)


def test_frames_of_other_sizes_fill_equal_panels():
    first, second = np.split(next(compose([film("a", 1, (36, 64)), film("b", 1, (144, 256))])), 2, axis=1)
    np.testing.assert_allclose(first[40:280], second[40:280], atol=2)


def test_players_have_short_names():
    run = "BC_training/checkpoints/quickstart"
    assert label("expert") == "expert"
    assert label(run) == label(f"{run}/") == "quickstart"
    assert label(f"{run}/best/120") == "quickstart/best/120"


@pytest.mark.parametrize(
    ("players", "game", "out", "message"),
    [
        (["expret"], GAME, "r.mp4", "did you mean 'expert'"),
        (["noop"], "doom/basik", "r.mp4", "did you mean 'doom/basic'"),
        ([], GAME, "r.mp4", "no player is given"),
        (["nobody"], GAME, "no/r.mp4", "cannot write"),
        (["noop", "run"], GAME, "r.mp4", r"\[up, down, attack\], the game has \[move_left, move_right, attack\]"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(
    tmp_path, monkeypatch, make_config, make_inputs, players, game, out, message
):
    monkeypatch.chdir(tmp_path)
    if "run" in players:
        inputs = dataclasses.replace(make_inputs(recorded_size=(72, 128)), action_names=("up", "down", "attack"))
        save_run(Path("run"), make_config(), inputs)
    with pytest.raises(UserError, match=message):
        film_rollouts(players, game, Path(out), QUIET)
    assert not list(tmp_path.glob("*.mp4"))
