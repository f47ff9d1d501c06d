import os
import subprocess
import sys
import textwrap

import jax
import pytest

from BC_training.runtime.compilation_cache import use_compilation_cache

# Prints the result of a compiled program, and how many programs were compiled and loaded.
PROGRAM = """
    import collections, jax, numpy as np
    from BC_training.runtime.compilation_cache import use_compilation_cache
    counts = collections.Counter()
    jax.monitoring.register_event_listener(lambda event, **_: counts.update([event.rsplit("/", 1)[1]]))
    use_compilation_cache()
    jax.jit(jax.numpy.sin)(np.ones(3, np.float32))
    jax.jit(jax.numpy.cos)(np.ones(3, np.float32))
    out = jax.jit(lambda x: jax.numpy.sin(x @ x.T).cumsum())(np.ones((16, 16), np.float32))
    print(np.asarray(out).tobytes().hex(), counts["cache_misses"], counts["cache_hits"])
"""


def run(home) -> tuple[str, int, int]:
    """Returns (result, programs compiled, programs loaded) of a new process, which prints nothing else."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)],
        env=os.environ | {"XDG_CACHE_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (result.returncode, result.stderr) == (0, "")
    value, compiled, loaded = result.stdout.split()
    return value, int(compiled), int(loaded)


def test_a_second_process_loads_what_the_first_compiled_and_compiles_a_torn_entry_again(tmp_path):
    value, compiled, _ = run(tmp_path)
    folder = tmp_path / "bc_training/xla"
    assert folder.stat().st_mode & 0o777 == 0o700
    entries = list(folder.glob("*-cache"))
    assert len(entries) == compiled > 2
    entries[0].write_bytes(b"")
    entries[1].write_bytes(entries[1].read_bytes()[:100])
    assert run(tmp_path) == (value, 2, compiled - 2)


@pytest.fixture
def unset():
    """JAX has no folder for compiled programs during the test."""
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def test_a_users_own_cache_stays_in_use(tmp_path, unset, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "mine"))
    use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir == str(tmp_path / "mine")
    assert not (tmp_path / "home").exists()


def test_without_its_folder_nothing_is_cached_and_one_line_says_so(tmp_path, unset, monkeypatch, caplog):
    (tmp_path / "bc_training").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir is None
    (line,) = caplog.messages
    assert "compiled programs are not kept from run to run: cannot make" in line
