"""What lies at a path that is no dataset, for messages."""

from BC_training.common.storage.names import rename
from BC_training.common.storage.store import LocalStore, Store


def other_layout(store: Store) -> str:
    """What a group without "keys" is instead, and what to do."""
    wanted = ("frames/zarr.json", "frames/.zarray", "meta/episode_ends/zarr.json", "meta/episode_ends/.zarray")
    episode, episode_v2, ends, ends_v2 = store.read(wanted)
    if episode or episode_v2:
        above = store.address.rstrip("/").rpartition("/")[0] or ".."
        return f"it is one episode; give the folder that holds it, {above}"
    if store.episode_names():
        return f"name each column of 'actions' {rename(store.address, 'keys', ['name_0', 'name_1'])}"
    what = "it is a replay buffer as of diffusion policy, which is not read; " if ends or ends_v2 else ""
    return f"{what}write groups episode_0, episode_1, ... as 'Your own dataset' in BC_training/QUICKSTART.md shows"


def datasets_in(store: Store) -> str:
    """Folders within that look like datasets."""
    if not isinstance(store, LocalStore) or not store.path.is_dir():
        return ""
    found = sorted(p.name for p in store.path.glob("*.zarr"))[:5]
    return f"; in it are {', '.join(found)}" if found else ""
