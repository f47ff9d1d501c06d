"""What a checkpoint's metadata hold."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from BC_training.common import config as config_module
from BC_training.common.preprocess import InputSpec
from BC_training.common.schema import Config
from BC_training.training.progress import TrainingProgress


@dataclass(frozen=True)
class Delivery:
    """How batches reached the steps; a training that goes on the same way gets the same bits."""

    backend: str
    cache: str  # the tier
    steps_per_dispatch: int


@dataclass(frozen=True)
class CheckpointMeta:
    """What a checkpoint holds beside its arrays and its decoding."""

    step: int
    epoch: int  # closed epochs
    config: Config
    inputs: InputSpec
    split: dict[str, list[str]]  # "train", "val" and "test" to episode names
    seeds: dict[str, list[Any]]  # as seeds.recorded_seeds returns them
    majority: list[bool]  # [A], the training split's commonest combination of buttons
    metrics: dict[str, Any]  # the row of the last epoch that ended, from tracking.log_epoch; empty before
    fingerprint: str  # identifies the dataset
    progress: TrainingProgress
    delivery: Delivery

    def to_dict(self) -> dict[str, Any]:
        typed = {name: getattr(self, name) for name in ("config", "progress", "delivery")}
        plain = {field.name: getattr(self, field.name) for field in fields(CheckpointMeta)}
        return plain | {name: asdict(value) for name, value in typed.items()} | {"inputs": self.inputs.to_dict()}

    @classmethod
    def from_dict(cls, raw: Mapping[str, Any], where: str) -> "CheckpointMeta":
        """Reads what ``to_dict`` returned, also by way of JSON; ``where`` names the config in errors.

        Raises:
            KeyError, TypeError, ValueError: a key is missing, or its value has another type.
            UserError: the config is not valid.
        """
        kinds = {"step": int, "epoch": int, "split": dict, "seeds": dict, "majority": list, "metrics": dict}
        for key, kind in kinds.items():
            if not isinstance(raw[key], kind):
                raise TypeError(f"{key} is {str(raw[key])[:50]}")
        return cls(
            **{key: raw[key] for key in kinds},
            config=config_module.from_dict(raw["config"], where),
            inputs=InputSpec.from_dict(raw["inputs"]),
            fingerprint=str(raw["fingerprint"]),
            progress=TrainingProgress(**raw["progress"]),
            delivery=Delivery(**raw["delivery"]),
        )
