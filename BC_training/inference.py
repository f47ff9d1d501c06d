"""``Policy``, which plays from a checkpoint folder.

As a command (``python -m BC_training.inference``) it predicts a recorded episode: see ``evaluation/predict.py``.
"""

from BC_training.play.policy import Policy

__all__ = ["Policy"]

if __name__ == "__main__":
    from BC_training.evaluation.predict import main

    main()
