"""Compiled programs are kept on disk from run to run, by JAX's own compilation cache."""

import logging
import multiprocessing
import os
import warnings
from pathlib import Path


def default_folder() -> Path:
    """Returns the folder of this program's caches."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser()) / "bc_training"


def use_compilation_cache() -> None:
    """Makes JAX keep compiled programs in the user's private folder ``<cache folder>/xla``.

    A user's JAX_COMPILATION_CACHE_DIR or JAX_ENABLE_COMPILATION_CACHE=false is left in force. It can
    be called again. JAX compiles a program again if its entry is damaged, for instance because a
    process was killed while it wrote it. The folder's size has no limit: under one
    (jax_compilation_cache_max_size) a process killed between JAX's two writes of an entry would
    keep JAX from writing any other.
    """
    import jax

    if jax.config.jax_compilation_cache_dir is not None:  # pyright: ignore[reportAttributeAccessIssue]
        return
    folder = default_folder() / "xla"
    try:
        folder.mkdir(0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)  # an entry is a program: who can write one can run what they like as this user
    except OSError as error:
        if multiprocessing.parent_process() is None:  # once, not in every worker
            reason = f"cannot make {folder} private ({error.strerror}); set XDG_CACHE_HOME to a folder of your own"
            logging.getLogger(__name__).warning(f"compiled programs are not kept from run to run: {reason}")
        return
    warnings.filterwarnings("ignore", "Error (reading|writing) persistent compilation cache entry")
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    jax.config.update("jax_persistent_cache_enable_xla_caches", "none")  # a GPU is tuned as it is without a cache
    if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
