"""Which episodes of games a training has seen: a score on those is no test of it.

An episode is a game without its handicaps, and a seed. Recordings name both in their attributes; those of others may
not, and then there is nothing to compare.
"""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from BC_training.common.errors import UserError
from BC_training.common.settings.evaluation import RolloutConfig
from BC_training.games import GameSpec

if TYPE_CHECKING:  # processes of scripted players do not load JAX
    from BC_training.common.dataset import ZarrGameplayDataset
    from BC_training.common.schema import RecordConfig
    from BC_training.training.checkpoint import Checkpoint

Span = tuple[str, int, int]  # game, first and last seed
Seeds = dict[str, list[Span]]  # "train", whose seeds set the parameters, and "val", whose seeds choose among them


def recorded_seeds(dataset: "ZarrGameplayDataset", split: dict[str, list[int]]) -> Seeds:
    """The episodes of games in the training and the validation split."""
    return {name: _spans(dataset.episodes[e].attrs for e in split[name]) for name in ("train", "val")}


def planned_seeds(record: "RecordConfig") -> list[Span]:
    return [_span(record.game, record.seed, record.episodes)]


def seen_seeds(saved: "Checkpoint", game: str, seeds: range) -> dict[str, int]:
    """How many of a game's seeds a checkpoint has seen before; empty where it has seen none.

    "trained" counts the seeds it was trained on, "chosen" the others that had a part in choosing it; "free" is the
    first of as many seeds that are neither.
    """
    chosen, play = list(saved.seeds.get("val", [])), saved.config.evaluation.rollout
    if play is not None and saved.config.evaluation.best_metric == "rollout":
        chosen.append(_span(play.known_game, play.validation_seed, play.episodes))
    trained, game = saved.seeds.get("train", []), _episodes_of(game)
    of_training = _met(trained, game, seeds)
    of_choice = _met(chosen, game, seeds) - of_training
    if not of_training and not of_choice:
        return {}
    free = _free([*trained, *chosen], game, len(seeds))
    return {"trained": len(of_training), "chosen": len(of_choice), "free": free}


def seen_text(seen: dict[str, int], episodes: int) -> str:
    words = {"trained": "the policy was trained on", "chosen": "the checkpoint was chosen on"}
    parts = " and ".join(f"{words[key]} {seen[key]}" for key in words if seen[key])
    return f"of these {episodes} seeds {parts}: this says little of others; --seed {seen['free']} has none of them"


def require_unseen(play: RolloutConfig | None, spans: Sequence[Span], where: str) -> None:
    """Raises a UserError if an episode to be trained on, from ``where``, is one that is played for a score."""
    if play is None:
        return
    game = _episodes_of(play.known_game)
    blocks = {"seed": play.seed} | ({} if play.every_n_epochs is None else {"validation_seed": play.validation_seed})
    for name, first in blocks.items():
        if met := _met(spans, game, range(first, first + play.episodes)):
            others = [(game, other, other + play.episodes - 1) for key, other in blocks.items() if key != name]
            raise UserError(
                f"config: evaluation.rollout.{name}={first}: {len(met)} of its {play.episodes} episodes are in {where} "
                f"(seed {min(met)} of {game}) and would be trained on: "
                f"evaluation.rollout.{name}={_free([*spans, *others], game, play.episodes)} has none"
            )


def _spans(episodes: Iterable[dict[str, Any]]) -> list[Span]:
    found: dict[str, set[int]] = {}
    for attrs in episodes:
        game, seed = attrs.get("game"), attrs.get("seed")
        if isinstance(game, str) and type(seed) is int:
            found.setdefault(_episodes_of(game), set()).add(seed)
    spans: list[Span] = []
    for game, seeds in sorted(found.items()):
        for seed in sorted(seeds):
            if spans and spans[-1][0] == game and spans[-1][2] == seed - 1:
                spans[-1] = (game, spans[-1][1], seed)
            else:
                spans.append((game, seed, seed))
    return spans


def _span(game: str, first: int, count: int) -> Span:
    return _episodes_of(game), first, first + count - 1


def _episodes_of(game: str) -> str:
    """The same text for games whose seeds mean the same episodes; names that are no game's stay as they are."""
    try:
        return str(GameSpec.parse(game).without_handicaps)
    except UserError:
        return game


def _met(spans: Sequence[Span], game: str, seeds: range) -> set[int]:
    """The ``seeds`` that lie in one of the spans."""
    held = [range(first, last + 1) for theirs, first, last in spans if theirs == game]
    return {seed for seed in seeds if any(seed in span for span in held)}


def _free(spans: Sequence[Span], game: str, count: int) -> int:
    """The lowest first seed of ``count`` in a row that no span holds."""
    start = 0
    for theirs, first, last in sorted(spans, key=lambda span: span[1]):
        if theirs == game and first < start + count and start <= last:
            start = last + 1
    return start
