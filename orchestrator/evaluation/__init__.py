"""Scores of a state on a task, and metrics over an accuracy matrix."""
