import os
import subprocess
import sys
import textwrap

import jax

from BC_training.runtime.compilation_cache import use_compilation_cache

# Prints what a compiled program gave, and how many programs were compiled and loaded.
PROGRAM = """
    import collections, jax, numpy as np
    from BC_training.runtime.compilation_cache import use_compilation_cache
    counts = collections.Counter()
    jax.monitoring.register_event_listener(lambda event, **_: counts.update([event.rsplit("/", 1)[1]]))
    use_compilation_cache()
    jax.jit(jax.numpy.sin)(np.ones(3, np.float32))
    out = jax.jit(lambda x: jax.numpy.sin(x @ x.T).cumsum())(np.ones((16, 16), np.float32))
    print(np.asarray(out).tobytes().hex(), counts["cache_misses"], counts["cache_hits"])
"""


def run(home, **environment: str) -> tuple[str, int, int]:
    """Returns a new process's (result, programs compiled, programs loaded); it must not print anything else."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(PROGRAM)],
        env=os.environ | {"XDG_CACHE_HOME": str(home)} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert (result.returncode, result.stderr) == (0, "")
    value, compiled, loaded = result.stdout.split()
    return value, int(compiled), int(loaded)


def test_a_second_process_compiles_nothing_and_damaged_entries_are_survived(tmp_path):
    value, compiled, _ = run(tmp_path)
    assert compiled > 1
    folder = tmp_path / "bc_training/xla"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert run(tmp_path) == (value, 0, compiled)
    for i, entry in enumerate(sorted(folder.glob("*-cache"))):  # emptied, torn, emptied, ...
        entry.write_bytes(entry.read_bytes()[: 1000 * (i % 2)])
    assert run(tmp_path)[0] == value


def test_a_users_own_cache_is_left_in_force(tmp_path):
    mine = tmp_path / "mine"
    run(tmp_path, JAX_COMPILATION_CACHE_DIR=str(mine))
    assert mine.is_dir()
    assert not (tmp_path / "bc_training").exists()


def test_a_folder_that_cannot_be_made_costs_the_cache_and_one_line(tmp_path, monkeypatch, caplog):
    (tmp_path / "bc_training").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        use_compilation_cache()
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    (line,) = caplog.messages
    assert "compiled programs are not kept from run to run: cannot make" in line
