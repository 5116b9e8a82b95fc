"""The proof that what is tuned on is not what is evaluated, made before anything is trained.

Four levels of distance between tuning streams and evaluation streams, from the strictest to none at all. A proof reads
train and dev of the tuning streams, never their test split, and all splits of the evaluation streams.
"""

from streams.holdout.levels import LEVELS, STATEMENTS, HoldoutViolation, Level
from streams.holdout.proof import Proof, prove
from streams.holdout.related import RELATED

__all__ = ["LEVELS", "RELATED", "STATEMENTS", "HoldoutViolation", "Level", "Proof", "prove"]
