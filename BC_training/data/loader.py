"""How the frames of a batch reach the device: the cache tiers.

    none     decoded from zarr as needed, some batches ahead of the step
    disk     read from a file of decoded frames, some batches ahead of the step
    device   all frames in device memory, gathered inside the jitted step

Frames travel as uint8; the step normalises them.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Int, Int32, Shaped, UInt8
from rich.progress import Progress

from BC_training.common.errors import UserError
from BC_training.common.schema import DatasetConfig
from BC_training.data import cache, tier_choice
from BC_training.data.frame_readers import CachedFrames, DecodedFrames, FrameReader
from BC_training.data.samples import Samples
from BC_training.runtime.sharding import AXIS, local_part, split_along, to_devices

# "frames" uint8 [B, T, 3, H, W] and the labels of `Samples.labels`
Batch = dict[str, Shaped[jax.Array, "B ..."]]

_BLOCK = 256  # frames moved at once while filling the device
_STEPS_PER_DISPATCH = 8  # on an accelerator, whose step can be shorter than its dispatch


@runtime_checkable
class Tier(Protocol):
    """Delivers batches in an order that the caller gives.

    Inside the jitted step, ``gather(data, item)`` makes a batch of what ``items`` delivered.

    Attributes:
        name: "none", "disk" or "device".
        takes_several_steps: whether one dispatch may take several steps.
        faster: the settings, in words, under which the step would wait less for its data, if any.
        mesh: the devices that a batch is split over.
        data: arrays on the devices that every step needs.
    """

    name: str
    takes_several_steps: bool
    faster: str | None
    mesh: Mesh
    data: Any

    def items(self, order: Iterator[np.ndarray]) -> Generator[Any, None, None]:
        """Makes a tree of device arrays for each array of samples [..., B], with the same leading axes.

        Every process gets the samples of the whole batch and reads only its part of them. B is a
        multiple of the number of devices.
        """
        ...

    def gather(self, data: Any, item: Any) -> Batch: ...

    def batches(self, order: Iterator[np.ndarray]) -> Iterator[Batch]:
        """Makes a batch of each array of samples."""
        ...


def dispatch_size(tier: Tier, wanted: int | None, before: int | None = None) -> int:
    """How many steps one dispatch takes: ``wanted`` by the config, or as ``before`` the training was interrupted."""
    if before is not None:
        return before
    if not tier.takes_several_steps:
        return 1
    return wanted or (1 if jax.default_backend() == "cpu" else _STEPS_PER_DISPATCH)


class HostTier:
    """Tiers ``none`` and ``disk``: threads prepare batches ahead of the step."""

    takes_several_steps = False
    data = ()

    def __init__(
        self,
        name: str,
        samples: Samples,
        reader: FrameReader,
        frame_size: tuple[int, int],
        prefetch: int,
        mesh: Mesh,
        faster: str | None,
    ):
        self.name, self._samples, self._reader, self._prefetch = name, samples, reader, prefetch
        self._frame_size, self.mesh, self.faster = frame_size, mesh, faster
        self._buffers: deque[np.ndarray] = deque()  # to use again: fresh memory costs as much as filling it

    def items(self, order: Iterator[np.ndarray]) -> Generator[Batch, None, None]:
        def load(samples: np.ndarray) -> Batch:
            batch = self._load(samples[..., local_part(self.mesh, samples.shape[-1])])
            on_device = jax.block_until_ready(to_devices(batch, split_along(self.mesh, samples.ndim - 1)))
            if jax.default_backend() != "cpu":  # where the array on the device is the one on the host
                self._buffers.append(batch["frames"])
            return on_device

        with ThreadPoolExecutor(self._prefetch, thread_name_prefix="load") as pool:
            pending = deque()
            try:
                for samples in order:
                    pending.append(pool.submit(load, samples))
                    if len(pending) > self._prefetch:
                        yield pending.popleft().result()
                while pending:
                    yield pending.popleft().result()
            finally:
                for future in pending:
                    future.cancel()

    batches = items

    def gather(self, data: Any, item: Batch) -> Batch:
        del data
        return item

    def _load(self, samples: Int[np.ndarray, "*B"]) -> dict[str, np.ndarray]:
        rows = self._samples.rows(samples)
        shape = (*rows.shape, 3, *self._frame_size)
        try:
            frames = self._buffers.pop()
        except IndexError:
            frames = np.empty(shape, np.uint8)
        if frames.shape != shape:
            frames = np.empty(shape, np.uint8)
        self._reader.read(rows.reshape(-1), frames.reshape(-1, *shape[-3:]))
        return {"frames": frames, **self._samples.labels(samples)}


class DeviceTier:
    """Tier ``device``: frames uint8 [rows, 3, H, W] in device memory, an equal part on each device."""

    name, takes_several_steps = "device", True
    faster: str | None = None

    def __init__(
        self, samples: Samples, reader: FrameReader, frame_size: tuple[int, int], progress: Progress, mesh: Mesh
    ):
        self._samples, self.mesh = samples, mesh
        each = -(-samples.num_rows // mesh.size)
        bar = progress.add_task("loading frames", total=samples.num_rows, status="")
        parts = []
        for i, device in enumerate(mesh.devices.flat):
            rows = range(i * each, min((i + 1) * each, samples.num_rows))
            if device.process_index == jax.process_index():
                parts.append(_fill(device, rows, each, reader, frame_size, lambda n: progress.update(bar, advance=n)))
        progress.remove_task(bar)
        shape = (each * mesh.size, 3, *frame_size)
        self.data = jax.make_array_from_single_device_arrays(shape, split_along(mesh, 0), parts)
        self._gather = jax.jit(self.gather)

    def items(self, order: Iterator[np.ndarray]) -> Generator[Any, None, None]:
        for samples in order:
            mine = samples[..., local_part(self.mesh, samples.shape[-1])]
            rows = self._samples.rows(mine).astype(np.int32)
            yield to_devices({"rows": rows, **self._samples.labels(mine)}, split_along(self.mesh, samples.ndim - 1))

    def gather(self, data: UInt8[jax.Array, "rows 3 H W"], item: Batch) -> Batch:
        labels = {name: value for name, value in item.items() if name != "rows"}
        if self.mesh.size == 1:
            return {"frames": data[item["rows"]], **labels}
        split = PartitionSpec(AXIS)
        pick = jax.shard_map(_pick, mesh=self.mesh, in_specs=(split, split), out_specs=split)
        return {"frames": pick(data, item["rows"]), **labels}

    def batches(self, order: Iterator[np.ndarray]) -> Iterator[Batch]:
        return (self._gather(self.data, item) for item in self.items(order))


def _fill(
    device: Any,
    rows: range,
    size: int,
    reader: FrameReader,
    frame_size: tuple[int, int],
    advance: Callable[[int], None],
) -> UInt8[jax.Array, "size 3 H W"]:
    """Puts the frames of ``rows`` on ``device``, and zeros after them, block by block into a donated array."""
    frames = jnp.zeros((size, 3, *frame_size), jnp.uint8, device=device)
    put = jax.jit(partial(jax.lax.dynamic_update_slice_in_dim, axis=0), donate_argnums=0)
    block_size = min(_BLOCK, len(rows))
    for start in range(0, len(rows), block_size or 1):
        fresh = min(block_size, len(rows) - start)
        start = min(start, len(rows) - block_size)  # the last block overlaps: one compiled shape
        block = np.empty((block_size, 3, *frame_size), np.uint8)
        reader.read(np.arange(rows.start + start, rows.start + start + block_size), block)
        frames = put(frames, jax.device_put(block, device), start)
        advance(fresh)
    return frames


def _pick(frames: UInt8[jax.Array, "rows 3 H W"], rows: Int32[jax.Array, "B T"]) -> UInt8[jax.Array, "B T 3 H W"]:
    """The frames of one device's part of a batch, whichever device holds them.

    Each device takes the frames that it holds of the whole batch; their sum is the batch.
    """
    wanted = jax.lax.all_gather(rows, AXIS, tiled=True) - jax.lax.axis_index(AXIS) * frames.shape[0]
    here = (wanted >= 0) & (wanted < frames.shape[0])
    found = jnp.where(here[..., None, None, None], frames[jnp.where(here, wanted, 0)], jnp.uint8(0))
    return jax.lax.psum_scatter(found, AXIS, tiled=True)


def make_tier(
    options: DatasetConfig, samples: Samples, frame_size: tuple[int, int], progress: Progress, mesh: Mesh
) -> Tier:
    """Makes the tier that ``options.cache`` names, of frames (H, W) = ``frame_size`` as the model sees them.

    Raises:
        UserError: the frames do not fit into that tier, or cannot be read.
    """
    mine = sum(device.process_index == jax.process_index() for device in mesh.devices.flat)
    needed = -(-samples.num_rows // mesh.size) * mine * 3 * frame_size[0] * frame_size[1]
    if options.cache == "device" and needed > (free := tier_choice.free_memory()):
        raise UserError(
            f"dataset.cache=device needs {needed / 1e9:.1f} GB for this process's part of the frames, "
            f"{free / 1e9:.1f} GB are free: use dataset.cache=disk or none, or a smaller dataset.frame_size"
        )
    size = f"{cache.packed_bytes(samples.dataset, frame_size) / 1e9:.1f} GB"
    if options.cache == "disk":
        limit = int(options.cache_limit * 1e9)
        packed = cache.open_packed(samples.dataset, frame_size, tier_choice.cache_dir(options), limit, progress)
        faster = f"dataset.cache=device ({size} of its memory), or a larger dataset.prefetch"
        return HostTier("disk", samples, CachedFrames(samples, packed), frame_size, options.prefetch, mesh, faster)
    reader = DecodedFrames(samples, frame_size)
    if options.cache == "device":
        return DeviceTier(samples, reader, frame_size, progress, mesh)
    faster = f"dataset.cache=disk ({size} on disk) or device ({size} of its memory)"
    return HostTier("none", samples, reader, frame_size, options.prefetch, mesh, faster)
