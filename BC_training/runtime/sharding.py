"""Data parallelism: the batch is split over devices and processes, everything else is on all of them.

A mesh has one axis, ``data``. Its devices are in the order of their processes, so each process
holds one contiguous part of a batch and reads that part alone.
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
    """``axis`` in as many equal parts as there are devices."""
    return NamedSharding(mesh, PartitionSpec(*[None] * axis, AXIS))


def local_part(mesh: Mesh, size: int) -> slice:
    """This process's part of a batch of ``size``, a multiple of the number of devices."""
    mine = [i for i, device in enumerate(mesh.devices.flat) if device.process_index == jax.process_index()]
    each = size // mesh.size
    return slice(mine[0] * each, (mine[-1] + 1) * each)


def to_devices(tree: Any, sharding: NamedSharding) -> Any:
    """Arrays of this process's part (of all, where nothing is split) as global arrays."""
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), tree)


def from_main(work: Callable[[], Any]) -> Any:
    """What ``work`` returns, of JSON types; the first process alone runs it, the others wait.

    Raises:
        UserError: raised by ``work``, on every process.
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
    """The first process's arrays, on every process; all have the same structure and shapes."""
    return tree if jax.process_count() == 1 else multihost_utils.broadcast_one_to_all(tree)
