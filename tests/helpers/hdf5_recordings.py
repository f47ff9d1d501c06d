"""HDF5 files as Minari and robomimic write them."""

import json

import h5py
import numpy as np


def put(group, name, value):
    if isinstance(value, dict):
        for inner, item in value.items():
            put(group.require_group(name), inner, item)
    elif isinstance(value, list):
        group.create_dataset(name, data=np.array([*value, None], object)[:-1], dtype=h5py.vlen_dtype(np.uint8))
    elif value is not None:
        group[name] = value


def minari(folder, observations, actions, space=None, episodes=1, **metadata):
    (folder / "data").mkdir(parents=True, exist_ok=True)
    with h5py.File(folder / "data" / "main_data.hdf5", "w") as file:
        for i in range(episodes):
            group = file.create_group(f"episode_{i}")
            put(group, "observations", observations)
            put(group, "actions", actions)
    if space is not None:
        metadata["action_space"] = json.dumps(space)
    (folder / "data" / "metadata.json").write_text(json.dumps(metadata))
    return folder


def robomimic(path, observations, *demos, env=None, samples=None):
    with h5py.File(path, "w") as file:
        for i, actions in enumerate(demos):
            group = file.create_group(f"data/demo_{i}")
            put(group, "obs", observations)
            put(group, "actions", actions)
            group.attrs["num_samples"] = samples or len(actions)
        if env is not None:
            file["data"].attrs["env_args"] = json.dumps({"env_kwargs": {"control_freq": env}})
    return path
