"""Batches are split over devices, which are simulated in a process of its own."""

from types import SimpleNamespace

import jax
import numpy as np
import pytest
from trainings import start

from BC_training.common.errors import UserError
from BC_training.runtime import sharding
from BC_training.runtime.sharding import all_devices, from_main, local_part, one_device

SEVERAL = """
import sys

import jax
import numpy as np
from jax.sharding import Mesh
from rich.progress import Progress

from BC_training.data import loader
from BC_training.common.dataset import ZarrGameplayDataset
from BC_training.data.loader import make_tier
from BC_training.common.preprocess import Window
from BC_training.data.samples import Samples
from BC_training.common.schema import DatasetConfig
from BC_training.runtime.sharding import AXIS, all_devices, local_part

loader._BLOCK = 4  # frames: several blocks a device, the last one partial
dataset = ZarrGameplayDataset(sys.argv[1])
window = Window(history=3, frame_skip=2, action_history=2, action_chunk=2, state=True)
devices = all_devices().devices
assert devices.shape == (8,)
ids = np.random.default_rng(0).permutation(24)[None].repeat(2, axis=0)  # 2 steps of 24, for 1, 2, 3, 4 and 8
ids[1] = ids[1][::-1]

def host(tree):
    return jax.tree.map(np.asarray, tree)

def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert (a[name].dtype, a[name].shape) == (b[name].dtype, b[name].shape), name
        assert a[name].tobytes() == b[name].tobytes(), name

# 25 rows are no multiple of a number of devices; with 5, some of 8 devices hold none.
for episodes, batches in ([0, 1, 2], ids), ([3], ids % 5):
    samples = Samples(dataset, episodes, window)
    for cache in ("none", "disk", "device") if len(episodes) > 1 else ("device",):
        options = DatasetConfig("unused", cache=cache, cache_dir=sys.argv[2])
        expected = None
        for count in (1, 2, 3, 4, 8):
            mesh = Mesh(devices[:count], (AXIS,))
            with Progress(disable=True) as progress:
                tier = make_tier(options, samples, (24, 32), progress, mesh)
            assert local_part(mesh, 24) == slice(0, 24)
            if cache == "device":
                shapes = [s.data.shape for s in tier.data.addressable_shards]
                assert shapes == [(-(-samples.num_rows // count), 3, 24, 32)] * count, shapes
                assert {s.device for s in tier.data.addressable_shards} == set(devices[:count])
            (item,) = tier.items(iter([batches]))
            assert all([s.data.shape[1] for s in x.addressable_shards] == [24 // count] * count
                       for x in jax.tree.leaves(item))
            gather = jax.jit(tier.gather)
            found = [gather(tier.data, jax.tree.map(lambda x: x[k], item)) for k in range(2)]
            assert [s.data.shape[0] for s in found[0]["frames"].addressable_shards] == [24 // count] * count
            found = [host(batch) for batch in found]
            for batch, plain in zip(found, tier.batches(iter(batches)), strict=True):
                same(batch, host(plain))
            for batch, reference in zip(found, expected or found, strict=True):
                same(batch, reference)
            expected = found
    rows = np.concatenate([dataset.frames(e, range(dataset.episodes[e].length)) for e in episodes])
    for batch, wanted in zip(expected, batches, strict=True):
        assert (batch["frames"] == rows[samples.rows(wanted)]).all()
print("checked")
"""


@pytest.mark.slow
def test_every_number_of_devices_gives_the_batches_of_one(tmp_path, make_dataset):
    """They agree to the bit in every tier, and each device holds an equal part of the frames and of a batch."""
    make_dataset(tmp_path / "x.zarr", [12, 4, 9, 5])
    printed, errors = start(["-c", SEVERAL, tmp_path / "x.zarr", tmp_path / "cache"], 8).communicate(timeout=300)
    assert printed == "checked\n", errors


def mesh_of(*processes: int) -> SimpleNamespace:
    devices = np.array([SimpleNamespace(process_index=p) for p in processes])
    return SimpleNamespace(devices=devices, size=devices.size)


@pytest.mark.parametrize(
    ("processes", "parts"),
    [
        ((0,), [(0, 24)]),
        ((0, 1), [(0, 12), (12, 24)]),
        ((0, 0, 1, 1), [(0, 12), (12, 24)]),
        ((0, 0, 1, 1, 2, 2), [(0, 8), (8, 16), (16, 24)]),
    ],
)
def test_each_process_reads_the_part_of_its_devices(monkeypatch, processes, parts):
    for process, part in enumerate(parts):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        assert local_part(mesh_of(*processes), 24) == slice(*part)


def test_devices_are_in_the_order_of_their_processes(monkeypatch):
    found = [SimpleNamespace(process_index=p, id=i) for p, i in ((1, 0), (0, 3), (1, 2), (0, 1))]
    monkeypatch.setattr(jax, "devices", lambda: found)
    monkeypatch.setattr(sharding, "Mesh", lambda devices, names: devices)
    assert [(d.process_index, d.id) for d in all_devices()] == [(0, 1), (0, 3), (1, 0), (1, 2)]


def test_a_single_process_takes_its_own_answer_or_error():
    assert from_main(lambda: {"a": [1, None]}) == {"a": [1, None]}

    def refuse():
        raise UserError("no")

    with pytest.raises(UserError, match=r"^no$"):
        from_main(refuse)
    assert one_device().size == 1
