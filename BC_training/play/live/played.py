"""What is measured while a policy plays in a window."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from BC_training.play.say import say

STAGES = ("capture", "decision", "injection", "loop")


@dataclass
class Played:
    """What was measured: times of each frame in ms, by stage; "loop" is from the moment of a frame to its action."""

    fps: float
    frames: int = 0
    late: int = 0  # frames whose action came after the next frame's moment
    missed: int = 0  # moments that were left out
    late_state: int = 0  # frames in which a value of the game's state was late
    by_person: list[bool] = field(default_factory=list)  # of each frame
    seconds: float = 0.0
    times: dict[str, list[float]] = field(default_factory=lambda: {stage: [] for stage in STAGES})

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {"frames": self.frames, "seconds": self.seconds, "asked_fps": self.fps}
        found["fps"] = self.frames / self.seconds if self.seconds else 0.0
        found |= {"late": self.late, "missed": self.missed, "human_frames": sum(self.by_person)}
        found["late_state_frames"] = self.late_state
        for stage, values in self.times.items():
            p50, p99 = np.percentile(values, (50, 99)).tolist() if values else (None, None)
            found[f"{stage}_ms"] = {"p50": p50, "p99": p99}
        return found

    def print(self, console: Console) -> None:
        table = Table("ms a frame", "p50", "p99", box=None)
        found = self.to_dict()
        for stage in STAGES:
            table.add_row(stage, *(f"{v:.1f}" if v is not None else "–" for v in found[f"{stage}_ms"].values()))
        console.print(table)
        share = (self.late + self.missed) / max(self.frames + self.missed, 1)
        say(
            console,
            f"{self.frames:,} frames, {found['fps']:.1f} of {self.fps:g} a second, {share:.1%} late or left out, "
            f"{sum(self.by_person):,} by the person"
            + (f", {self.late_state:,} with an old state" if self.late_state else ""),
        )
