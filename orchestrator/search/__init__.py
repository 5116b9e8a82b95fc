"""The held-out protocol: hyper-parameters are tuned where the evaluation never looks.

protocol        the two phases in order: tune, freeze what was chosen, evaluate it
definition      what is checked before the first trial; space: what may be tried
decisions       which values a trial tries, and which trials go on at a rung
trials          a trial and how it ended, as values; trial_store: all of them, kept in a journal
ray_tune        runs trials side by side
choice          the chosen values, frozen in a file with a hash
results         both phases as values; report prints them, screen shows trials while they run, plots draws them
"""

import os

# Read by ray.tune when it is imported: its own table and warnings give way to ours.
os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")
os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
os.environ.setdefault("TUNE_DISABLE_STRICT_METRIC_CHECKING", "1")  # a trial that failed has no score to report
os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Ctrl-C ends the search, not just the tuning phase
os.environ.setdefault("TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S", "0")
