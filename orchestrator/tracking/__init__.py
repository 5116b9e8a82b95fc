"""The copy in MLflow. The only package that imports it."""

import os

# a server that is down must be noticed in seconds; the mirror itself goes on trying
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

from orchestrator.tracking.sync import MlflowSync, check_uri, experiments

__all__ = ["MlflowSync", "check_uri", "experiments"]
