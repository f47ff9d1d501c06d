"""``Policy``, which plays from a checkpoint folder.

``python -m BC_training.inference`` is the command ``inference``, which predicts a recorded episode.
"""

from BC_training.play.policy import Policy

__all__ = ["Policy"]

if __name__ == "__main__":
    import runpy
    import sys

    sys.argv.insert(1, "inference")
    runpy.run_module("BC_training", run_name="__main__")
