"""What a trunk that was trained on other games is worth where there are few episodes of a new one.

    uv run python benchmarks/init_from.py
    uv run python benchmarks/init_from.py --scenario deadly_corridor --trunk defend_the_line defend_the_center

The expert is recorded in every scenario of ``--trunk``, and in the new one. The trunk is trained on the former together
(``dataset.path``). Then two trainings, alike but for where they begin (``training.init_from``), take as many steps on
the new scenario's few episodes, and both play the same fresh seeds. What was recorded and trained is kept, so the same
command goes on. KEY=VALUE are settings of all trainings.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rich.console import Console

from BC_training.common.config import load_config
from BC_training.common.metrics import number, return_text
from BC_training.common.schema import Config
from BC_training.common.settings.typed import parse_overrides
from BC_training.play.intervals import interval_text
from BC_training.play.missing_dataset import record_missing_dataset
from BC_training.play.results import RolloutResult
from BC_training.play.rollout import rollout
from BC_training.train import train

SCENARIOS = (
    *("basic", "deadly_corridor", "defend_the_center", "defend_the_line"),
    *("health_gathering_supreme", "my_way_home"),
)


@dataclass(frozen=True)
class Plan:
    """What is recorded, trained and played."""

    scenario: str
    trunk: list[str]
    folder: Path
    episodes: int
    trunk_episodes: int
    epochs: int
    trunk_epochs: int
    size: tuple[int, int]
    plays: int
    first_seed: int
    settings: dict[str, Any]

    def config(self, scenario: str, name: str, episodes: int, epochs: int, init_from: Path | None) -> Config:
        return load_config(
            "configs/pure_cnn_small.yaml",
            {
                "dataset.path": str(self.folder / f"{scenario}-{episodes}.zarr"),
                "dataset.record.game": f"doom/{scenario}",
                "dataset.record.episodes": episodes,
                "dataset.record.frame_size": list(self.size),
                "dataset.frame_size": list(self.size),
                "dataset.split": {"train": 0.8, "val": 0.2, "test": 0.0},
                "training.num_epochs": epochs,
                "training.checkpoint_dir": str(self.folder / "checkpoints"),
                "training.init_from": init_from and str(init_from),
                "evaluation.rollout": None,
                "logging.log_dir": str(self.folder / "logs"),
                "logging.run_name": name,
                "logging.report": False,
                **self.settings,
            },
        )


def measure(plan: Plan, console: Console) -> dict[str, RolloutResult]:
    """Records, trains and plays; the results of the policy that begins "from nothing" and of that "from the trunk"."""
    name = f"trunk-{'-'.join(plan.trunk)}"
    parts = [plan.config(scenario, name, plan.trunk_episodes, plan.trunk_epochs, None) for scenario in plan.trunk]
    for part in parts:
        record_missing_dataset(part, console)
    paths = tuple(path for part in parts for path in part.dataset.paths)
    together = replace(parts[0].dataset, path=paths, record=None)
    trunk = train(replace(parts[0], dataset=together), console)
    results, references = {}, None
    for name, begin in {"from nothing": None, "from the trunk": trunk}.items():
        run = f"{plan.scenario}-{name.replace(' ', '-')}"
        player = train(plan.config(plan.scenario, run, plan.episodes, plan.epochs, begin), console)
        results[name] = rollout(
            str(player),
            f"doom/{plan.scenario}",
            console,
            episodes=plan.plays,
            seed=plan.first_seed,
            references=references,
        )
        references = results[name].references
    return results


def table(plan: Plan, results: dict[str, RolloutResult]) -> str:
    """The results as Markdown."""
    lines = [f"| {plan.scenario}, {plan.episodes} episodes | mean return | normalized |", "|---|---:|---:|"]
    for name, found in results.items():
        of_returns = return_text(found.mean) + interval_text(found.ci95, return_text)
        normalized = number(found.normalized) + interval_text(found.normalized_ci95, number)
        lines.append(f"| {name} | {of_returns} | {normalized} |")
    return "\n".join(lines)


def make_plan(arguments: Sequence[str] | None = None) -> Plan:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenario", default="defend_the_line", help="the new one (%(default)s)")
    parser.add_argument("--trunk", nargs="+", default=None, help="the others (all but the new one)")
    parser.add_argument("--folder", type=Path, default=Path("data/init_from"), help="for all files (%(default)s)")
    parser.add_argument("--episodes", type=int, default=5, help="of the new scenario (%(default)s)")
    parser.add_argument("--trunk-episodes", type=int, default=10, help="of each of the others (%(default)s)")
    parser.add_argument("--epochs", type=int, default=10, help="over those of the new one (%(default)s)")
    parser.add_argument("--trunk-epochs", type=int, default=4, help="(%(default)s)")
    parser.add_argument("--size", type=int, nargs=2, default=[45, 80], metavar=("H", "W"), help="of frames (45 80)")
    parser.add_argument("--plays", type=int, default=100, help="episodes that are played for a score (%(default)s)")
    parser.add_argument("--first-seed", type=int, default=5000, help="of those (%(default)s)")
    parser.add_argument("settings", nargs="*", metavar="KEY=VALUE")
    options = vars(parser.parse_args(arguments))
    settings = parse_overrides(options.pop("settings"), Config)
    options["trunk"] = options["trunk"] or [name for name in SCENARIOS if name != options["scenario"]]
    return Plan(**options | {"settings": settings, "size": tuple(options["size"])})


def main() -> None:
    plan = make_plan()
    print(table(plan, measure(plan, Console())))


if __name__ == "__main__":
    main()
