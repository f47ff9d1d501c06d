import os

import jax
import pytest

from BC_training.common import devices
from BC_training.common.devices import choose_device, set_xla_flags
from BC_training.common.errors import UserError


def test_auto_takes_what_jax_finds():
    assert jax.devices()[0].device_kind in choose_device("auto")


@pytest.mark.skipif(jax.default_backend() == "gpu", reason="there is a GPU")
def test_a_gpu_where_there_is_none():
    with pytest.raises(UserError, match="uv sync --group cuda") as caught:
        choose_device("gpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("version", "flags", "expected"),
    [
        ("0.10.2", None, "--xla_cpu_experimental_ynn_fusion_type="),
        ("0.11.0", None, None),  # may not know the flag, which would end the process
        ("0.10.2", "--my_flag", "--my_flag"),
    ],
)
def test_xla_flags(monkeypatch, version, flags, expected):
    monkeypatch.setattr(devices, "version", lambda name: version)
    environment = {} if flags is None else {"XLA_FLAGS": flags}
    monkeypatch.setattr(os, "environ", environment)
    set_xla_flags()
    assert environment.get("XLA_FLAGS") == expected
