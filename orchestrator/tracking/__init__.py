"""The copy in MLflow. The only package that imports it.

Under which tags and keys a fact is found there is said below: in `orchestrator.store.identities` for runs and models, and by the
events themselves for metrics.
"""

import os

# None, whatever the user has set for MLflow at large: a request to create something that is repeated blindly creates it
# twice where only the answer was lost. The copy itself goes on trying, and asks first what is there.
os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
# it would print a line on each run that ends, amid what programs read
os.environ["MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"] = "true"
# a server that is down must be noticed in seconds
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")

from orchestrator.tracking.connection import check_uri, experiments
from orchestrator.tracking.sync import MlflowSync, close, sync_of

__all__ = ["MlflowSync", "check_uri", "close", "experiments", "sync_of"]
