"""A training plays the game that its config names, or that of its dataset."""

from contextlib import closing
from dataclasses import replace

from rich.console import Console

from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.errors import UserError
from BC_training.common.preprocess import InputSpec
from BC_training.common.schema import Config
from BC_training.games import make_game
from BC_training.games.fit import require_fit
from BC_training.runtime.sharding import from_main


def game_of(dataset: ZarrGameplayDataset) -> str | None:
    """The game that a dataset's episodes name; None where they name none or several."""
    named = {game for episode in dataset.episodes if isinstance(game := episode.attrs.get("game"), str)}
    return named.pop() if len(named) == 1 else None


def with_game(config: Config, dataset: ZarrGameplayDataset, inputs: InputSpec, console: Console) -> Config:
    """``config`` with the game to play, or without play where the dataset's game cannot be played here.

    The game is started once, so that a misfit shows now and not after training.

    Raises:
        UserError: the config's game does not fit, or there is none but play is to choose the best checkpoint.
    """
    play = config.evaluation.rollout
    if play is None:
        return config

    def find() -> dict[str, str]:
        game = play.game or game_of(dataset)
        if game is None:
            return {"reason": "its episodes do not name one game"}
        if play.game is None and game.startswith("window/"):  # nobody plays there but who is told to
            return {"reason": "its game is a window of the user's"}
        try:
            _require_fit(game, dataset.path, inputs)
        except UserError as error:
            if play.game is not None:
                raise
            return {"reason": str(error)}
        return {"game": game}

    found = from_main(find)
    if "game" in found:
        return replace(config, evaluation=replace(config.evaluation, rollout=replace(play, game=found["game"])))
    reason = f"{dataset.path} is not played: {found['reason']}; evaluation.rollout.game=GAME says what to play"
    if config.evaluation.best_metric == "rollout":
        raise UserError(f"config: evaluation.best_metric=rollout, but {reason}")
    console.print(reason, soft_wrap=True, markup=False)
    return replace(config, evaluation=replace(config.evaluation, rollout=None))


def _require_fit(game: str, data: str, inputs: InputSpec) -> None:
    with closing(make_game(game, frame_size=inputs.recorded_size)) as env:
        require_fit(f"{data} (evaluation.rollout=null trains without play)", inputs, env)
