"""Data parallelism: devices and processes share the batch, and all of them have everything else.

A mesh has one axis, ``data``. Its devices are in the order of their processes, so each process
holds, and reads, one contiguous part of a batch.
"""

import itertools
import json
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from BC_training.common.errors import UserError
from BC_training.runtime.devices import wait_for_all

AXIS = "data"
_answers = itertools.count()


def all_devices() -> Mesh:
    """Every device of every process."""
    return Mesh(np.array(sorted(jax.devices(), key=lambda d: (d.process_index, d.id))), (AXIS,))


def one_device() -> Mesh:
    """This process's first device."""
    return Mesh(np.array(jax.local_devices()[:1]), (AXIS,))


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def split_along(mesh: Mesh, axis: int) -> NamedSharding:
    """Splits ``axis`` into one equal part for each device."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))


def local_part(mesh: Mesh, size: int) -> slice:
    """This process's part of a batch of ``size``, a multiple of the number of devices."""
    mine = [i for i, device in enumerate(mesh.devices.flat) if device.process_index == jax.process_index()]
    each = size // mesh.size
    return slice(mine[0] * each, (mine[-1] + 1) * each)


def to_devices(tree: Any, sharding: NamedSharding) -> Any:
    """Turns arrays of this process's part, or whole ones where nothing is split, into global arrays."""
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)


def from_main(work: Callable[[], Any]) -> Any:
    """Runs ``work`` in the first process only and returns its result, of JSON types, in every process.

    Raises:
        UserError: ``work`` raised it; every process does.
    """
    if jax.process_count() == 1:
        return work()
    answer: dict[str, Any] = {}
    if jax.process_index() == 0:
        try:
            answer = {"result": work()}
        except UserError as error:
            answer = {"error": str(error)}
    wait_for_all(f"answer {next(_answers)}")
    text = np.frombuffer(json.dumps(answer).encode(), np.uint8)
    size = int(broadcast(np.int32(text.size)))
    text = broadcast(np.resize(text, size))
    answer = json.loads(np.asarray(text).tobytes())
    if "error" in answer:
        raise UserError(answer["error"])
    return answer["result"]


def broadcast(tree: Any) -> Any:
    """Returns the first process's arrays in every process; all pass the same structure and shapes."""
    return tree if jax.process_count() == 1 else multihost_utils.broadcast_one_to_all(tree)
