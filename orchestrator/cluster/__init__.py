"""Sequences on a Ray cluster: groups of Ray Train workers side by side, and scores computed beside them.

With `search/ray_tune.py` the only place that imports Ray.
"""

import os

# Read by ray.train when it is imported and handed on to its controller and workers: so they are set before any import of Ray.
os.environ.setdefault("RAY_TRAIN_HEALTH_CHECK_INTERVAL_S", "0.5")
os.environ.setdefault("RAY_TRAIN_ENABLE_PRINT_PATCH", "0")
# relative paths of a user's own code stay those of the folder where the command was given
os.environ.setdefault("RAY_CHDIR_TO_TRIAL_DIR", "0")
# the report has a line on a worker that died, with the path of its log; Ray's own paragraph would only stand beside it
os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", "^A worker died or was killed while executing a task")
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # no GPU asked for: none seen
