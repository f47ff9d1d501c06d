"""The policy variants: one folder each, found by name.

A variant is ``models/<name>/model.py`` with three things:

- ``Config``: a frozen dataclass whose first field is ``name: str``;
- an NNX module whose call is ``model(observation, *, train, rngs=None) -> logits`` with
  ``observation["frames"]: float32 [B, T, 3, H, W]`` in [0, 1], the current frame last, and
  ``logits: float32 [B, A]`` before the sigmoid; where its ``Config`` has ``use_state`` true, also
  with "state" and "ids" as ``preprocess.normalize`` makes them;
- ``create_model(config, inputs, rngs)`` that builds it for ``inputs``, a
  ``BC_training.common.preprocess.InputSpec``.

A ``Config`` whose class attribute ``every_frame`` is True has the loss at each frame of the history:
in training its logits are [B, T, A]. Its module has two more functions, ``encode(observation, *,
train)``, of each frame by itself, to features [B, T, F], and ``remember(features, *, train)`` from
those to the logits [B, T, A], so that play encodes each frame once.
"""
