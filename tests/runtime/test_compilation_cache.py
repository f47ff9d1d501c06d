import hashlib
import os
import signal
import subprocess
import sys
import textwrap
import time

import pytest
from jax._src import compilation_cache as jax_cache

from BC_training.runtime import compilation_cache
from BC_training.runtime.compilation_cache import CheckedCache, use_compilation_cache

KEY = "jit_f-0123"
ENTRY = bytes(range(256)) * 40

# Prints a hash of what a compiled program gave, and how many programs were compiled and loaded.
PROGRAM = """
    import hashlib, jax, numpy as np
    from BC_training.runtime.compilation_cache import use_compilation_cache
    counts = {"cache_misses": 0, "cache_hits": 0}
    def count(event, **_):
        counts[event.rsplit("/", 1)[1]] = counts.get(event.rsplit("/", 1)[1], 0) + 1
    jax.monitoring.register_event_listener(count)
    use_compilation_cache()
    other = jax.jit(jax.numpy.sin)(np.ones(3, np.float32))
    out = jax.jit(lambda x: jax.numpy.sin(x @ x.T).cumsum())(np.ones((16, 16), np.float32))
    print(hashlib.sha256(np.asarray(out).tobytes()).hexdigest(), counts["cache_misses"], counts["cache_hits"])
"""

# Trains a small model for some steps.
TRAINING = """
    import hashlib, jax, numpy as np
    from BC_training.runtime.compilation_cache import use_compilation_cache
    from BC_training.common.preprocess import InputSpec
    from BC_training.common.schema import Config, DatasetConfig, TrainingConfig
    from BC_training.training.train_state import init_state, make_optimizer, make_train_step, split_model
    from BC_training.models.pure_cnn.model import Config as Model
    counts = {"cache_misses": 0, "cache_hits": 0}
    def count(event, **_):
        counts[event.rsplit("/", 1)[1]] = counts.get(event.rsplit("/", 1)[1], 0) + 1
    jax.monitoring.register_event_listener(count)
    use_compilation_cache()
    small = Model(name="pure_cnn", conv_features=(8, 8), conv_strides=(2, 2), dense_features=(16,))
    config = Config(DatasetConfig(path=""), small, TrainingConfig(batch_size=16))
    model = split_model(config, InputSpec(("a", "b", "c"), (), (24, 32), (24, 32), 17.0))
    optimizer, schedule = make_optimizer(config.training, 100)
    state = init_state(model, optimizer)
    rng = np.random.default_rng(0)
    batches = {"frames": rng.integers(0, 256, (4, 16, 1, 3, 24, 32), np.uint8), "action": rng.random((4, 16, 3)) < 0.3}
    steps = make_train_step(model, optimizer, schedule, np.ones(3, np.float32), config, lambda data, item: item)
    state, _ = steps(state, (), batches)
    bits = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(state))
    print(hashlib.sha256(bits).hexdigest(), counts["cache_misses"], counts["cache_hits"])
"""


def run(code: str, home, **environment: str) -> tuple[str, int, int]:
    """A new process's (hash of the result, programs compiled, programs loaded)."""
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | {"XDG_CACHE_HOME": str(home)} | environment,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    value, compiled, loaded = result.stdout.split()
    return value, int(compiled), int(loaded)


def entries(home):
    return sorted((home / "bc_training" / "xla").iterdir())


@pytest.mark.slow
def test_a_second_run_compiles_nothing_and_damaged_entries_are_compiled_again(tmp_path):
    value, compiled, _ = run(PROGRAM, tmp_path)
    assert compiled > 1
    (damaged,) = (file for file in entries(tmp_path) if "lambda" in file.name)
    whole = damaged.read_bytes()
    middle = len(whole) // 2
    damaged.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
    assert run(PROGRAM, tmp_path) == (value, 1, compiled - 1)
    assert run(PROGRAM, tmp_path) == (value, 0, compiled)


@pytest.mark.slow
def test_the_users_own_cache_is_used(tmp_path):
    mine = tmp_path / "mine"
    run(PROGRAM, tmp_path, JAX_COMPILATION_CACHE_DIR=str(mine))
    assert mine.is_dir()
    assert not (tmp_path / "bc_training").exists()


@pytest.mark.slow
@pytest.mark.parametrize("flags", ["", "--xla_force_host_platform_device_count=2"])
def test_training_gives_the_same_bits_from_loaded_programs(tmp_path, flags):
    value, compiled, _ = run(TRAINING, tmp_path, XLA_FLAGS=flags)
    assert run(TRAINING, tmp_path, XLA_FLAGS=flags) == (value, 0, compiled)
    assert run(TRAINING, tmp_path, XLA_FLAGS=flags, JAX_ENABLE_COMPILATION_CACHE="false") == (value, 0, 0)


def test_what_is_put_can_be_got(tmp_path):
    cache = CheckedCache(tmp_path)
    assert cache.get(KEY) is None
    cache.put(KEY, ENTRY)
    assert CheckedCache(tmp_path).get(KEY) == ENTRY
    cache.put(KEY, b"")  # another process compiled it too
    assert cache.get(KEY) == b""
    assert [file.name for file in tmp_path.iterdir()] == [KEY]


@pytest.mark.parametrize(
    "damage",
    [
        lambda stored: b"",
        lambda stored: stored[:10],
        lambda stored: stored[:-1],
        lambda stored: stored + b"\0",
        lambda stored: bytes([stored[0] ^ 1]) + stored[1:],
        lambda stored: stored[:-1] + bytes([stored[-1] ^ 128]),
    ],
)
def test_a_damaged_entry_is_missing_and_removed(tmp_path, damage):
    cache, file = CheckedCache(tmp_path), tmp_path / KEY
    cache.put(KEY, ENTRY)
    file.write_bytes(damage(file.read_bytes()))
    assert cache.get(KEY) is None
    assert not file.exists()


def test_an_entry_that_cannot_be_touched_is_used(tmp_path, monkeypatch):
    CheckedCache(tmp_path).put("key", b"entry")

    def utime(*args):
        raise OSError("read-only")

    monkeypatch.setattr(os, "utime", utime)
    assert CheckedCache(tmp_path).get("key") == b"entry"


def test_an_entry_is_of_its_name(tmp_path):
    cache = CheckedCache(tmp_path)
    cache.put(KEY, ENTRY)
    (tmp_path / KEY).rename(tmp_path / "other")
    assert cache.get("other") is None


def test_a_full_disk_costs_the_entry_alone(tmp_path):
    code = """
        import resource, signal, sys
        from pathlib import Path
        from BC_training.runtime.compilation_cache import CheckedCache
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        cache = CheckedCache(Path(sys.argv[1]))
        cache.put("large", bytes(5000))
        cache.put("small", b"x")
        print(cache.get("large"), cache.get("small"))
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert result.stdout == "None b'x'\n"
    assert [file.name for file in tmp_path.iterdir()] == ["small"]


def test_a_killed_writer_leaves_no_torn_entry(tmp_path):
    code = """
        import itertools, sys
        from pathlib import Path
        from BC_training.runtime.compilation_cache import CheckedCache
        print("ready", flush=True)
        for i in itertools.count():
            CheckedCache(Path(sys.argv[1])).put(str(i % 4), bytes(10_000_000))
    """
    for after in (0.01, 0.03, 0.05, 0.07):
        command = [sys.executable, "-c", textwrap.dedent(code), str(tmp_path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            process.stdout.readline()
            time.sleep(after)
            process.send_signal(signal.SIGKILL)
        for file in tmp_path.iterdir():
            if not file.name.endswith(".partial"):
                stored = file.read_bytes()
                assert hashlib.sha256(file.name.encode() + stored[32:]).digest() == stored[:32]
    compilation_cache._make_room(tmp_path, 0)
    assert list(tmp_path.iterdir()) == []


def test_the_entries_not_used_for_longest_make_room(tmp_path):
    cache = CheckedCache(tmp_path)
    for i in range(4):
        cache.put(str(i), bytes(1000))
        os.utime(tmp_path / str(i), (i, i))
    cache.get("0")
    compilation_cache._make_room(tmp_path, 2500)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["0", "3"]
    compilation_cache._make_room(tmp_path / "none", 0)


def test_the_folder_is_the_users_own(tmp_path):
    folder = tmp_path / "new" / "xla"
    before = os.umask(0)
    try:
        assert compilation_cache._make_private(folder) is None
    finally:
        os.umask(before)
    assert folder.stat().st_mode & 0o777 == 0o700
    assert compilation_cache._make_private(folder) is None
    folder.chmod(0o770)
    assert f"chmod 700 {folder}" in str(compilation_cache._make_private(folder))


def test_a_folder_of_another_user_is_not_used(tmp_path, monkeypatch):
    owner = tmp_path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    assert "belongs to another user" in str(compilation_cache._make_private(tmp_path))


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").touch()
    assert "cannot make" in str(compilation_cache._make_private(tmp_path / "file" / "xla"))


def test_an_untrusted_folder_is_said_in_one_line(tmp_path, monkeypatch, caplog):
    folder = tmp_path / "bc_training" / "xla"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(jax_cache, "_cache", None)
    use_compilation_cache()
    assert jax_cache._cache is None
    assert caplog.messages == [
        f"compiled programs are not kept from run to run: others can write to {folder}; run 'chmod 700 {folder}'"
    ]
