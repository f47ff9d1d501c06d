"""A new training that begins at another one's parameters: a trunk trained on other games, or for other buttons.

What is taken over of a checkpoint is every parameter and batch statistic that the new model has by the same name in the
same shape, as they are there to play with, and nothing else. The head goes by its columns instead: those of a button,
an axis with as many bins, or a predicted state value of the same name, wherever they stand.
"""

from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict
from rich.console import Console

from BC_training.common.errors import UserError
from BC_training.common.preprocess import InputSpec
from BC_training.common.schema import Config
from BC_training.runtime.sharding import broadcast, from_main
from BC_training.training import checkpoint
from BC_training.training.run_folder import run_folders, step_numbers
from BC_training.training.train_state import SplitModel, abstract_model

Place = tuple[Hashable, ...]  # of an array in a model: "params" or "batch_stats", the module, ..., the array's name
Columns = dict[Place, tuple[Any, Any]]  # of arrays' last axis: in the new model, and in the one taken from

_ALL = slice(None)
_HEAD = "head"  # the ``ActionHead`` of every variant


def require_source(config: Config) -> None:
    """Raises a UserError where a new training is to begin at a checkpoint that is not there, or is damaged."""

    def check() -> None:
        if _is_due(config):
            checkpoint.verify(checkpoint.read(_origin(config)).path, ("model",))

    from_main(check)


def require_fit(config: Config, model: SplitModel) -> None:
    """Raises a UserError where a new training is to begin at a checkpoint of which nothing fits ``model``."""

    def check() -> None:
        if _is_due(config):
            source = checkpoint.read(_origin(config))
            _fitting(model, abstract_model(source.config, source.inputs), config)

    from_main(check)


def take_over(config: Config, model: SplitModel, console: Console) -> SplitModel:
    """``model``, freshly drawn, with what ``training.init_from`` has for it; prints what that is.

    The first process reads for all. Without ``init_from`` the model stays as it is.
    """
    if config.training.init_from is None:
        return model
    arrays = {place: np.array(x) for place, x in _arrays(model).items()}

    def take() -> None:
        found = checkpoint.read(_origin(config))
        source = checkpoint.read_model(found)
        saved, fitting = _arrays(source), _fitting(model, source, config)
        for place, (mine, theirs) in fitting.items():
            arrays[place][..., mine] = np.asarray(saved[place])[..., theirs]
        console.print(_describe(model, fitting, str(found.path)), soft_wrap=True, markup=False, highlight=False)

    from_main(take)
    taken = broadcast(unflatten_dict(arrays))
    return SplitModel(model.graphdef, taken["params"], taken.get("batch_stats", {}), model.inputs)


def _origin(config: Config) -> str:
    assert config.training.init_from is not None
    return config.training.init_from


def _is_due(config: Config) -> bool:
    """Whether a training would begin at ``init_from`` now; one that goes on has its own state."""
    run, _ = run_folders(config)
    is_there = any(step_numbers(run / kind) for kind in ("last", "best"))
    begins = config.training.resume == "never" or (config.training.resume == "auto" and not is_there)
    return config.training.init_from is not None and begins


def _arrays(model: SplitModel) -> dict[Place, Any]:
    return flatten_dict({"params": model.params, "batch_stats": model.batch_stats})


def _fitting(model: SplitModel, source: SplitModel, config: Config) -> Columns:
    """What of ``source`` fits ``model``; a UserError if that is nothing."""
    wanted, saved = _arrays(model), _arrays(source)
    kernel = ("params", _HEAD, "kernel")
    has_head = kernel in saved and saved[kernel].shape[0] == wanted[kernel].shape[0]
    found: Columns = {}
    for place in wanted.keys() & saved.keys():
        if place[1] == _HEAD:
            mine, theirs = (_columns(m.inputs, x[place].shape[-1]) for m, x in ((model, wanted), (source, saved)))
            shared = [name for name in mine if name in theirs] if has_head else []
            if shared:
                found[place] = [mine.index(name) for name in shared], [theirs.index(name) for name in shared]
        elif wanted[place].shape == saved[place].shape:
            found[place] = _ALL, _ALL
    if not found:
        there, here = (", ".join(map(_shown, list(x.items())[:3])) for x in (saved, wanted))
        raise UserError(
            f"training.init_from={config.training.init_from}: no parameter of it fits {config.model.name} by name and "
            f"shape, and no button of its head by name: it has {len(saved)} arrays ({there}, ...) for "
            f"{_listed(_names(source.inputs))}, here are {len(wanted)} ({here}, ...) for "
            f"{_listed(_names(model.inputs))}: choose a checkpoint of a similar model, or null"
        )
    return found


def _columns(inputs: InputSpec, width: int) -> list[tuple[Hashable, ...]]:
    """What each of the head's columns stands for: of each action of the chunk in turn, its ``InputSpec.outputs``."""
    bins = inputs.axis_bins.count if inputs.axis_bins else 0
    one: list[tuple[Hashable, ...]] = [("button", name) for name in inputs.action_names]
    one += [("axis", name, bins, k) for name in inputs.axis_names for k in range(bins)]
    one += [("state", name) for name in (inputs.auxiliary.config.standardized if inputs.auxiliary else ())]
    return [(*what, action) for action in range(width // inputs.outputs) for what in one]


def _describe(model: SplitModel, fitting: Columns, path: str) -> str:
    """The modules that are taken over and those that are drawn anew, in a line."""
    wanted = _arrays(model)
    columns = _columns(model.inputs, wanted["params", _HEAD, "kernel"].shape[-1])
    kept = {columns[k] for k in fitting.get(("params", _HEAD, "kernel"), ((), ()))[0]}
    total, count = (Counter(str(place[1]) for place in places) for places in (wanted, fitting))
    parts = []
    for share, is_taken in ((count, True), (total - count, False)):
        modules = [name for name in total if name != _HEAD and share[name]]
        found = [f"{m} ({share[m]} of {total[m]} arrays)" if share[m] < total[m] else m for m in modules]
        outputs = list(dict.fromkeys(str(column[1]) for column in columns if (column in kept) == is_taken))
        parts.append(", ".join(found + ([f"{_HEAD} of {_listed(outputs)}"] if outputs else [])) or "nothing")
    return f"begins at {path}: taken over are {parts[0]}; drawn anew: {parts[1]}"


def _names(inputs: InputSpec) -> Sequence[str]:
    return (*inputs.action_names, *inputs.axis_names)


def _listed(names: Sequence[str], most: int = 8) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _shown(item: tuple[Place, Any]) -> str:
    place, x = item
    return f"{'.'.join(map(str, place[1:]))} [{', '.join(map(str, x.shape))}]"
