"""The copy in MLflow. The only package that imports it."""

from orchestrator.tracking.mirror import Mirror, check_uri, experiments

__all__ = ["Mirror", "check_uri", "experiments"]
