"""The copy in MLflow. The only package that imports it.

Under which tags and keys a fact is found there is said below: in `orchestrator.store.identities` for runs and models, and by the
events themselves for metrics.
"""

import os

# a server that is down must be noticed in seconds; the copying itself goes on trying
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

from orchestrator.tracking.connection import check_uri, experiments
from orchestrator.tracking.sync import MlflowSync

__all__ = ["MlflowSync", "check_uri", "experiments"]
