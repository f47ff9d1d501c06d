"""The policy variants: one folder each, found by name.

A variant is ``models/<name>/model.py`` with three things:

- ``Config``: a frozen dataclass whose first field is ``name: str``;
- an NNX module whose call is ``model(observation, *, train, rngs=None) -> logits``;
- ``create_model(config, inputs, rngs)``, which builds it for ``inputs``, a
  ``BC_training.common.preprocess.InputSpec``.

``observation["frames"]`` is float32 or bfloat16 [B, T, 3, H, W] in [0, 1], the current frame last.
A ``Config`` with ``use_state`` true also gets "state" and "ids", as ``preprocess.normalize`` makes
them. With ``train`` the module uses the statistics of this batch and dropout, which needs the
stream "dropout" of ``rngs``; otherwise running statistics. The logits, before sigmoid
and softmax, are [B, L], or [B, C, L] for a chunk of C > 1 actions, of the frames' dtype; L is ``inputs.logits``.

A ``Config`` whose class attribute ``every_frame`` is True has the loss at each frame of the history:
in training its logits are [B, T, L]. Its module has two more functions, so that play encodes each
frame once: ``encode(observation, *, train)`` makes features [B, T, F] of each frame by itself, and
``remember(features, *, train)`` makes the logits [B, T, L] from them.
"""
