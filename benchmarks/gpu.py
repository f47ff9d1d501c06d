"""What one accelerator does with the project: step, loop, memory, latency, beside torch.compile, on a page.

    uv run --group cuda python benchmarks/gpu.py --out gpu.html
    uv run --group cuda python benchmarks/gpu.py --out gpu.html --torch-python /path/to/venv/bin/python
    uv run python benchmarks/gpu.py --out cpu.html --sizes 24x32 --batches 8 --steps 2 --frames 64

Every measurement is a process of its own, so that its peak of memory is its own and one that runs
out of memory leaves the others alone. All numbers also go to a JSON file beside the page.
"""

import argparse
import contextlib
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from io import StringIO
from itertools import product
from pathlib import Path
from time import perf_counter
from typing import Any

import jax
import numpy as np
import train_step
from jinja2 import ChoiceLoader, FileSystemLoader
from rich.console import Console
from rich.progress import track

from BC_training.common.action import Action
from BC_training.common.config import load_config
from BC_training.common.schema import Config
from BC_training.common.storage.writer import EpisodeWriter, Names, recording
from BC_training.reports import page
from BC_training.runtime.devices import prepare_devices
from BC_training.train import train
from BC_training.training.train_state import abstract_model, make_predict, split_model

NETS = {"pure_cnn": "configs/pure_cnn.yaml", "resnet_policy": "configs/resnet_policy_full.yaml"}
# Dense operations a second of the matrix units, from NVIDIA's data sheets: bfloat16, and TF32 for float32.
PEAKS = {
    "H200": (989e12, 495e12),
    "H100": (989e12, 495e12),
    "A100": (312e12, 156e12),
    "L4": (121e12, 60e12),
    "RTX 4090": (165e12, 83e12),
    "RTX 3090": (71e12, 36e12),
}


def settings(cell: dict[str, Any]) -> Config:
    height, width = cell["size"]
    return load_config(
        NETS[cell["net"]],
        [
            f"dataset.frame_size=[{height},{width}]",
            f"training.batch_size={cell['batch']}",
            f"training.precision={cell['precision']}",
            f"system.deterministic={json.dumps(cell['deterministic'])}",
            *cell.get("overrides", []),
        ],
    )


def peak_flops(kind: str, precision: str) -> float | None:
    """Operations a second of the device's data sheet; None of a device that is not listed."""
    return next(
        (peaks[precision == "float32"] for name, peaks in PEAKS.items() if re.search(rf"\b{name}\b", kind)), None
    )


def step_cell(cell: dict[str, Any]) -> dict[str, Any]:
    """Frames a second of the step alone, its operations, its peak of memory, and PyTorch's rate in turn with it."""
    config = settings(cell)
    dispatch = 1 if jax.default_backend() == "cpu" else 8
    runs = {"jax": train_step.jax_step(config, dispatch)}
    memory = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
    if cell["torch_python"]:
        device = "cpu" if jax.default_backend() == "cpu" else "cuda"
        python = cell["torch_python"]
        runs["torch"] = train_step.torch_step(python, config, cell["precision"], device, compiled=True)
    seconds = train_step.in_turn(runs, cell["rounds"], -(-cell["steps"] // dispatch) * dispatch)
    best = {name: cell["batch"] / statistics.median(times) for name, times in seconds.items()}
    flops, peak = step_flops(config), peak_flops(jax.devices()[0].device_kind, cell["precision"])
    return {
        "frames_per_second": best["jax"],
        "torch_frames_per_second": best.get("torch"),
        "ratio": best["jax"] / best["torch"] if "torch" in best else None,
        "flops_a_frame": flops,
        "utilisation": None if peak is None else flops * best["jax"] / peak,
        "memory": memory,
    }


def step_flops(config: Config) -> float:
    """Floating-point operations of a training step, a frame, as XLA counts those of the forward pass, times three."""
    inputs = train_step.inputs_of(config)
    model = abstract_model(config, inputs)
    frames = jax.ShapeDtypeStruct((1, inputs.window.history, *inputs.frame_shape), np.uint8)
    lowered = jax.jit(make_predict(model)).lower(model.params, model.batch_stats, {"frames": frames})
    return 3.0 * lowered.compile().cost_analysis()["flops"]


def loop_cell(cell: dict[str, Any]) -> dict[str, Any]:
    """Frames a second of a real training over ``frames`` random frames, and its share of waiting for data."""
    with tempfile.TemporaryDirectory() as folder:
        write_noise(Path(folder, "noise.zarr"), cell["size"], cell["frames"])
        cell["overrides"] = [
            f"dataset.path={folder}/noise.zarr",
            f"dataset.cache={cell['cache']}",
            f"dataset.cache_dir={folder}",
            "dataset.split={train: 0.5, val: 0.5, test: 0.0}",
            f"training.checkpoint_dir={folder}/checkpoints",
            "training.num_epochs=3",
            f"logging.log_dir={folder}/logs",
            "logging.run_name=loop",
            "logging.wandb.enabled=false",
            "evaluation.rollout=null",
        ]
        train(settings(cell), Console(file=StringIO()))
        lines = Path(folder, "logs/loop/metrics.jsonl").read_text(encoding="utf-8").splitlines()
    epochs = [row for row in map(json.loads, lines) if row["kind"] == "epoch"]
    return {name: epochs[-1][name] for name in ("frames_per_second", "data_wait")}


def write_noise(path: Path, size: tuple[int, int], frames: int) -> None:
    """Writes two episodes of noise, each of ``frames``, of which a training sees one."""
    rng = np.random.default_rng(0)
    with recording(path, Names(train_step.BUTTONS)):
        for number in range(2):
            writer = EpisodeWriter(path, number)
            for _ in range(frames):
                frame = rng.integers(0, 256, (3, *size), dtype=np.uint8)
                writer.append(frame, Action.of(rng.random(len(train_step.BUTTONS)) < 0.3), None)
            writer.commit({"fps": 17.5})


def latency_cell(cell: dict[str, Any]) -> dict[str, Any]:
    """Milliseconds from one frame in the host's memory to its logits there."""
    config = settings(cell)
    inputs = train_step.inputs_of(config)
    model = split_model(config, inputs)
    predict, model_state = make_predict(model), (model.params, model.batch_stats)
    frame = np.random.default_rng(0).integers(0, 256, (1, 1, *inputs.frame_shape), dtype=np.uint8)
    times = []
    for _ in range(10 * cell["steps"] + 10):
        start = perf_counter()
        np.asarray(predict(*model_state, {"frames": frame}))
        times.append((perf_counter() - start) * 1e3)
    p50, p99 = np.percentile(times[10:], [50, 99])
    return {"p50": p50, "p99": p99}


CELLS = {"step": step_cell, "loop": loop_cell, "latency": latency_cell}


def cells(options: argparse.Namespace) -> list[dict[str, Any]]:
    """All measurements, each as the argument of a process."""
    common = {"steps": options.steps, "rounds": options.rounds, "frames": options.frames}
    common |= {"torch_python": options.torch_python}
    found = []
    for net, size in product(NETS, options.sizes):
        plain = common | {"net": net, "size": size, "deterministic": False}
        for precision, batch in product(("bfloat16", "float32"), options.batches):
            found.append({"what": "step", **plain, "precision": precision, "batch": batch})
        largest = {**plain, "precision": "bfloat16", "batch": max(options.batches)}
        found.append({"what": "step", **largest, "deterministic": True})
        found += [{"what": "loop", **largest, "cache": cache} for cache in ("device", "disk")]
        found.append({"what": "latency", **plain, "precision": "float32", "batch": min(options.batches)})
    return found


def measure(cell: dict[str, Any]) -> dict[str, Any]:
    """The cell with its results or, if its process failed, the last line of what it said."""
    command = [sys.executable, __file__, "--cell", json.dumps(cell)]
    done = subprocess.run(command, capture_output=True, text=True)
    with contextlib.suppress(IndexError, json.JSONDecodeError):
        return cell | json.loads(done.stdout.splitlines()[-1])
    return cell | {"error": (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]}


def write_page(out: Path, device: str, results: list[dict[str, Any]], command: str) -> None:
    out.with_suffix(".json").write_text(json.dumps({"device": device, "results": results}, indent=1))
    page.TEMPLATES.loader = ChoiceLoader([FileSystemLoader(Path(__file__).parent), page.TEMPLATES.loader])
    tables = {what: [r for r in results if r["what"] == what] for what in CELLS}
    text = page.fill("gpu.html", device=device, tables=tables, day=date.today().isoformat(), run=command)
    out.write_text(text, encoding="utf-8")


def size_of(text: str) -> tuple[int, int]:
    height, width = map(int, text.split("x"))
    return height, width


def make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("gpu.html"))
    parser.add_argument("--sizes", type=size_of, nargs="+", default=[(72, 128), (288, 512)], help="HEIGHTxWIDTH")
    parser.add_argument("--batches", type=int, nargs="+", default=[64, 256, 1024])
    parser.add_argument("--steps", type=int, default=40, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=8192, help="of the loop's epochs")
    parser.add_argument("--torch-python", help="an interpreter with PyTorch, for the ratio to torch.compile")
    parser.add_argument("--cell", type=json.loads, help=argparse.SUPPRESS)
    return parser


def main() -> None:
    options = make_parser().parse_args()
    if options.cell:
        prepare_devices(settings(options.cell).system)
        print(json.dumps(CELLS[options.cell["what"]](options.cell)))
        return
    # The devices are named by a process that ends: one that holds the GPU would share its memory with the others.
    probe = "import jax; print(jax.devices()[0].device_kind, '· jax', jax.__version__)"
    device = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout.strip()
    device += f" · {os.cpu_count()} cores"
    results = [measure(cell) for cell in track(cells(options), "measuring")]
    write_page(options.out, device, results, " ".join(["benchmarks/gpu.py", *sys.argv[1:]]))
    failed = [r for r in results if "error" in r]
    print(f"{options.out}: {len(results)} measurements on {device}, {len(failed)} of them failed")
    if len(failed) == len(results):
        sys.exit(1)


if __name__ == "__main__":
    main()
