"""XLA flags and the choice of device."""

import os
from importlib.metadata import version

from BC_training.common.errors import UserError


def set_xla_flags() -> None:
    """Turns off a fusion of jaxlib 0.10's CPU backend that slows convolutions.

    Has to run before JAX starts its backend. Leaves a user's XLA_FLAGS alone, and jaxlib
    versions that may not know the flag, which would end the process.
    """
    if "XLA_FLAGS" not in os.environ and version("jaxlib").startswith("0.10."):
        os.environ["XLA_FLAGS"] = "--xla_cpu_experimental_ynn_fusion_type="


def choose_device(kind: str) -> str:
    """Makes JAX use ``kind`` ("auto", "cpu" or "gpu") and returns the device in words.

    Raises:
        UserError: "gpu" where JAX finds none.
    """
    import jax  # here: set_xla_flags must come first

    if kind == "cpu":
        os.environ["JAX_PLATFORMS"] = "cpu"  # for worker processes
        jax.config.update("jax_platforms", "cpu")
    try:
        devices = jax.devices("gpu") if kind == "gpu" else jax.devices()
    except RuntimeError as error:
        raise UserError(
            "system.device=gpu, but JAX finds no NVIDIA GPU: install JAX for it with 'uv sync --group cuda', "
            "or set system.device=auto"
        ) from error
    rest = f" (one of {len(devices)})" if len(devices) > 1 else ""
    return f"{devices[0].device_kind}{rest}"
