"""Behaviour cloning from gameplay: record, train a policy that plays like it, watch it play."""

from BC_training.runtime.devices import set_xla_flags

__version__ = "0.1.0"

set_xla_flags()
