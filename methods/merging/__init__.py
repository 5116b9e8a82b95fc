"""Weights merged after each task."""
