"""The data path: decoding, the disk cache, opening, memory, and how long training waits for it.

    uv run python benchmarks/data.py
    uv run python benchmarks/data.py --torch-python /path/to/venv/bin/python
    uv run python benchmarks/data.py --only-start

Records 288x512 episodes of Doom first, if they are missing. Rates are the best of three rounds,
in which what is compared takes turns. --torch-python, an interpreter that has PyTorch, adds a
DataLoader with two workers over the same packed file.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import perf_counter

import numpy as np
import zarr
from numcodecs import Zstd
from rich.console import Console
from rich.progress import Progress
from zarr.codecs import Crc32cCodec, ZstdCodec

from BC_training.common.action import at_rest
from BC_training.common.config import load_config
from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.preprocess import Window
from BC_training.common.schema import DatasetConfig, RecordConfig
from BC_training.common.storage.writer import EpisodeWriter, Names, recording
from BC_training.data.cache import find_caches
from BC_training.data.loader import HostTier, make_tier
from BC_training.data.samples import Samples
from BC_training.play.record import record_missing
from BC_training.runtime.sharding import one_device
from BC_training.train import train

BATCH = 32
QUIET = Console(file=open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
MEMORY_CGROUP = Path("/sys/fs/cgroup/memory")


def host_tier(name: str, samples: Samples, cache_dir: Path) -> HostTier:
    options = DatasetConfig("unused", cache=name, cache_dir=str(cache_dir))  # pyright: ignore[reportArgumentType]
    with Progress(console=QUIET) as progress:
        tier = make_tier(options, samples, samples.dataset.frame_size, progress, one_device())
    assert isinstance(tier, HostTier)
    return tier


def orders(samples: Samples, batches: int, seed: int) -> Iterator[np.ndarray]:
    order = samples.order(BATCH, seed)
    return (order.batch(step) for step in range(batches))


def host_batches(tier: HostTier, order: Iterator[np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """Batches as they are before they go to the device; each is valid until the next is taken."""
    with ThreadPoolExecutor(tier._prefetch) as pool:
        for batch in pool.map(tier._load, order):
            yield batch
            tier._buffers.append(batch["frames"])


def rate_of(tier: HostTier, samples: Samples, batches: int, seed: int) -> float:
    """Frames per second of random batches."""
    start, frames = perf_counter(), 0
    for batch in host_batches(tier, orders(samples, batches, seed)):
        frames += batch["frames"].shape[0] * batch["frames"].shape[1]
    return frames / (perf_counter() - start)


def zarr_rate(samples: Samples, batches: int, seed: int) -> float:
    """Frames per second of zarr-python, indexed frame by frame in the same order."""
    root = zarr.open_group(samples.dataset.path, mode="r")
    arrays = {e.name: root[f"{e.name}/frames"] for e in samples.dataset.episodes}
    start, frames = perf_counter(), 0
    for ids in orders(samples, batches, seed):
        np.stack([arrays[name][t] for name, t in samples.locate(ids)])
        frames += len(ids)
    return frames / (perf_counter() - start)


def zstd_rate(samples: Samples, batches: int, seed: int) -> float:
    """Frames per second of nothing but decompressing the chunks, in memory already, in two threads."""
    places = samples.locate(np.concatenate(list(orders(samples, batches, seed))))
    root, codec = Path(samples.dataset.path), Zstd()
    chunks = [_chunk(root / name / "frames", t) for name, t in places]
    with ThreadPoolExecutor(2) as pool:
        start = perf_counter()
        list(pool.map(codec.decode, chunks))
        return len(chunks) / (perf_counter() - start)


def _chunk(folder: Path, row: int) -> bytes:
    """The compressed frame ``row``, less its checksum."""
    (rows, *_) = zarr.open_array(folder, mode="r").shards or ()
    shard = (folder / f"c.{row // rows}.0.0.0").read_bytes()
    start, size = np.frombuffer(shard[-16 * rows - 4 : -4], "<u8").reshape(rows, 2)[row % rows].tolist()
    return shard[start : start + size - 4]


def floor_rate(packed: Path, frame_bytes: int, seed: int) -> float:
    """Frames per second of nothing but copying random frames out of the page cache, two threads."""
    buffers, batches = [np.empty((BATCH, frame_bytes), np.uint8) for _ in range(2)], 300
    count = packed.stat().st_size // frame_bytes
    with open(packed, "rb") as file, ThreadPoolExecutor(2) as pool:

        def copy(batch: int) -> None:
            frames = np.random.default_rng([seed, batch]).integers(0, count, BATCH)
            for view, frame in zip(buffers[batch % 2], frames.tolist(), strict=True):
                os.preadv(file.fileno(), [view.data], frame * frame_bytes)

        start = perf_counter()
        list(pool.map(copy, range(batches)))
        return batches * BATCH / (perf_counter() - start)


def torch_rate(python: str, dataset: ZarrGameplayDataset, cache_dir: Path) -> float:
    (packed,) = find_caches(cache_dir)
    options = {
        "path": str(packed.path / "frames.bin"),
        "frames": packed.frames,
        "size": dataset.frame_size,
        "batch_size": BATCH,
    }
    peer = Path(__file__).with_name("torch_loader.py")
    run = subprocess.run([python, peer, json.dumps(options)], capture_output=True, text=True, check=True)
    return json.loads(run.stdout)["frames_per_second"]


def best(*measures: Callable[[int], float]) -> list[float]:
    """Each measure's best of three rounds, in which they take turns."""
    rounds = [[measure(seed) for measure in measures] for seed in range(3)]
    return [max(column) for column in zip(*rounds, strict=True)]


def loading(path: Path, cache_dir: Path, torch_python: str | None) -> None:
    dataset = ZarrGameplayDataset(path)
    dataset.load_labels()
    episodes = range(len(dataset.episodes))
    single, windows = Samples(dataset, episodes, Window()), Samples(dataset, episodes, Window(history=8))
    none, disk = host_tier("none", single, cache_dir), host_tier("disk", single, cache_dir)
    eights = host_tier("disk", windows, cache_dir)
    print(f"{len(dataset):,} frames of {dataset.frame_size[0]}x{dataset.frame_size[1]}, batches of {BATCH}, frames/s:")
    decoded, zarr_python, zstd = best(
        lambda seed: rate_of(none, single, 60, seed),
        lambda seed: zarr_rate(single, 15, seed),
        lambda seed: zstd_rate(single, 30, seed),
    )
    print(f"  cache none                  {decoded:8,.0f}   aim 3,000")
    print(f"  zarr-python frame by frame  {zarr_python:8,.0f}   none / zarr-python {decoded / zarr_python:.1f}, aim 4")
    print(f"  zstd alone (the floor)      {zstd:8,.0f}   none / zstd {decoded / zstd:.2f}")
    rate_of(disk, single, 200, 0)  # into the page cache
    (found,) = find_caches(cache_dir)
    frame_bytes = 3 * dataset.frame_size[0] * dataset.frame_size[1]
    measures = [
        lambda seed: rate_of(disk, single, 300, seed),
        lambda seed: rate_of(eights, windows, 40, seed),
        lambda seed: floor_rate(found.path / "frames.bin", frame_bytes, seed),
    ]
    if torch_python:
        measures.append(lambda _: torch_rate(torch_python, dataset, cache_dir))
    packed, of_windows, floor, *peer = best(*measures)
    print(f"  cache disk                  {packed:8,.0f}   aim 20,000")
    print(f"  cache disk, windows of 8    {of_windows:8,.0f}   aim 12,000")
    print(f"  copying alone (the floor)   {floor:8,.0f}   disk / floor {packed / floor:.2f}")
    for theirs in peer:
        print(f"  PyTorch DataLoader          {theirs:8,.0f}   disk / DataLoader {packed / theirs:.1f}, aim 5")


def write_many_episodes(path: Path, count: int, length: int) -> None:
    """Metadata of a dataset of ``count`` episodes; their chunks are not needed to open it."""
    with recording(path, Names(tuple("abcdefg"), (), ("x", "y"))):
        writer = EpisodeWriter(path, 0)
        writer.append(np.zeros((3, 288, 512), np.uint8), at_rest(7, 0), np.zeros(2, np.float32))
        writer.commit({"fps": 17.5, "seed": 0, "game": "doom/deadly_corridor", "player": "expert", "score": 1.5})
    group = json.loads((path / "episode_0/zarr.json").read_text(encoding="utf-8"))
    arrays = {
        name: json.loads((path / f"episode_0/{name}/zarr.json").read_text(encoding="utf-8"))
        for name in ("frames", "actions", "state")
    }
    for name, meta in arrays.items():
        meta["shape"][0] = group["consolidated_metadata"]["metadata"][name]["shape"][0] = length
    for i in range(1, count):
        for name, meta in arrays.items():
            (path / f"episode_{i}" / name).mkdir(parents=True)
            (path / f"episode_{i}" / name / "zarr.json").write_text(json.dumps(meta, indent=2))
        (path / f"episode_{i}/zarr.json").write_text(json.dumps(group, indent=2))


OPEN = """
import sys, time
import psutil
from BC_training.common.dataset import ZarrGameplayDataset
start = time.perf_counter()
dataset = ZarrGameplayDataset(sys.argv[1])
seconds, gib = time.perf_counter() - start, psutil.Process().memory_info().rss / 2**30
size = f"{len(dataset):,} frames in {len(dataset.episodes):,} episodes"
print(f"opening {size}: {seconds:.2f} s, aim 2; {gib:.2f} GiB, aim 1")
"""


def opening(folder: Path) -> None:
    write_many_episodes(folder / "many.zarr", 10_000, 1000)
    for _ in range(2):
        subprocess.run([sys.executable, "-c", OPEN, folder / "many.zarr"], check=True)


def write_long_episodes(path: Path, count: int, length: int, state: int) -> None:
    """Actions and state of a dataset of ``count`` episodes, and one frame of each: as much as a start reads."""
    draw = np.random.default_rng(0)
    codecs = [ZstdCodec(level=1), Crc32cCodec()]
    names = {"keys": [f"a{i}" for i in range(7)], "attributes": [f"s{i}" for i in range(state)]}
    root = zarr.create_group(path, attributes={"format": "framewise", "version": 1, **names})
    for e in range(count):
        episode = root.create_group(f"episode_{e}", attributes={"fps": 30.0})
        arrays = {"actions": np.repeat(draw.random((length // 10, 7)) < 0.3, 10, axis=0)}
        if state:
            steps = draw.normal(size=(length, state)).cumsum(axis=0)
            arrays["state"] = steps.round(1).astype(np.float32)
        frames = episode.create_array(
            "frames", shape=(length, 3, 72, 128), dtype="uint8", chunks=(1, 3, 72, 128), compressors=codecs
        )
        frames[length // 2] = e + 1
        for name, values in arrays.items():
            stored = episode.create_array(
                name,
                shape=values.shape,
                dtype=values.dtype,
                chunks=(4096, values.shape[1]),
                compressors=codecs,
                config={"write_empty_chunks": True},
            )
            stored[:] = values
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            zarr.consolidate_metadata(path / f"episode_{e}")


START = """
import sys, time
from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.metrics import class_weights, majority_actions
from BC_training.common.preprocess import Window
from BC_training.training.resume import fingerprint
from BC_training.data.samples import Samples
from BC_training.common.state import StateFeatures
from BC_training.common.settings.state import StateConfig

uses_state = sys.argv[2] == "seen"
start, cpu = time.perf_counter(), time.process_time()
dataset = ZarrGameplayDataset(sys.argv[1])
dataset.load_labels()
split = dataset.split({"train": 0.8, "val": 0.1, "test": 0.1}, 0)
if uses_state:
    states = ((dataset.episodes[e].name, dataset.state(e)) for e in split["train"])
    StateFeatures.fit(StateConfig(standardized=dataset.state_names), dataset.state_names, states, dataset.path)
train, val = (Samples(dataset, split[name], Window(state=uses_state)) for name in ("train", "val"))
order = train.order(64, 0)
class_weights(train.frequencies(order), "sqrt", 10)
majority_actions(train.targets)
fingerprint(dataset)
order.batch(0)
print(time.perf_counter() - start, time.process_time() - cpu)
"""


def starting(folder: Path) -> None:
    """What a training reads and counts before its first step, of 10 million frames; frames and JAX aside."""
    for state, seen in ((0, ""), (19, ""), (19, "seen")):
        path = folder / f"long{state}.zarr"
        if not path.exists():
            write_long_episodes(path, 100, 100_000, state)
        command = [sys.executable, "-c", START, path, seen]
        runs = [subprocess.run(command, check=True, capture_output=True, text=True).stdout.split() for _ in range(5)]
        seconds, cpu = (min(float(run[i]) for run in runs) for i in range(2))
        what = f"{state} state values, {'seen by the model' if seen else 'not seen'}" if state else "no state"
        print(f"starting with 10,000,000 frames, {what}: {seconds:.2f} s, CPU {cpu:.2f} s, the least of 5; aim 3")


MEMORY = """
import sys
from pathlib import Path
import psutil
sys.path.insert(0, {benchmarks!r})
from data import BATCH, host_batches, host_tier, orders
from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.common.preprocess import Window
from BC_training.data.samples import Samples

dataset = ZarrGameplayDataset({path!r})
samples = Samples(dataset, range(len(dataset.episodes)), Window())
tier = host_tier("disk", samples, Path({cache_dir!r}))
batches, process, used = len(samples) // BATCH, psutil.Process(), []
for i, _ in enumerate(host_batches(tier, orders(samples, batches, 0))):
    if i in (batches // 10, batches // 2, batches - 1):
        used.append(process.memory_info().rss / 2**20)
print(*(f"{{mib:.0f}}" for mib in used))
"""


def memory(path: Path, cache_dir: Path) -> None:
    """Memory of the loader in a control group that may hold half of the packed file."""
    (packed,) = find_caches(cache_dir)
    limit = packed.bytes // 2
    with open(packed.path / "frames.bin", "rb") as file:  # out of the page cache, so that reading counts
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    program = MEMORY.format(benchmarks=str(Path(__file__).parent), path=str(path), cache_dir=str(cache_dir))
    group = MEMORY_CGROUP / f"bc_training_{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(limit))
        confine = lambda: (group / "cgroup.procs").write_text(str(os.getpid()))  # noqa: E731
        with warnings.catch_warnings():  # of forking: the child only writes its number before it becomes Python
            warnings.simplefilter("ignore", RuntimeWarning)
            run = subprocess.run([sys.executable, "-c", program], preexec_fn=confine, capture_output=True, text=True)
    except OSError as error:
        print(f"memory: not measured, no control group can be made here ({error})")
        return
    finally:
        if group.is_dir():
            group.rmdir()
    if run.returncode:
        print(f"memory: the loader failed under the limit\n{run.stderr}")
        return
    print(
        f"memory of the loader over {packed.bytes / 2**20:,.0f} MiB with {limit / 2**20:,.0f} MiB to live in: "
        f"{' then '.join(run.stdout.split())} MiB at 10, 50 and 100 % of an epoch"
    )


def waiting(config: str, cache: str, folder: Path, *overrides: str) -> None:
    """The share of an epoch that training waits for its data, as the log has it."""
    common = [
        f"dataset.cache={cache}",
        f"dataset.cache_dir={folder}/training",
        "training.num_epochs=1",
        "training.resume=never",
        f"training.checkpoint_dir={folder}/checkpoints",
        f"logging.log_dir={folder}/logs",
        "logging.run_name=benchmark",
        "logging.wandb.enabled=false",
        "evaluation.rollout=null",
    ]
    train(load_config(config, [*common, *overrides]), QUIET)
    rows = map(json.loads, (folder / "logs/benchmark/metrics.jsonl").read_text(encoding="utf-8").splitlines())
    row = next(row for row in rows if row["kind"] == "epoch")
    name = Path(config).stem
    print(f"{name:10} cache {cache:6} waits {row['data_wait']:.1%} of {row['frames_per_second']:.0f} frames/s, aim 2 %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("data/benchmark.zarr"))
    parser.add_argument("--episodes", type=int, default=24, help="to record, if they are missing")
    parser.add_argument("--only-start", action="store_true", help="measure only the start of 10 million frames")
    parser.add_argument("--torch-python", help="an interpreter with PyTorch")
    arguments = parser.parse_args()
    if arguments.only_start:
        with tempfile.TemporaryDirectory() as name:
            starting(Path(name))
        return
    record_missing(arguments.data, RecordConfig("doom/deadly_corridor", episodes=arguments.episodes), None, Console())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        loading(arguments.data, folder / "cache", arguments.torch_python)
        memory(arguments.data, folder / "cache")
        opening(folder)
        starting(folder)
        for cache in ("none", "disk", "device"):
            waiting("configs/quickstart.yaml", cache, folder)
        for cache in ("none", "disk"):
            record = ["dataset.record.episodes=4", f"dataset.path={arguments.data}", "dataset.split.train=0.2"]
            waiting(
                "configs/pure_cnn.yaml", cache, folder, *record, "dataset.split.val=0.05", "dataset.split.test=0.75"
            )


if __name__ == "__main__":
    main()
