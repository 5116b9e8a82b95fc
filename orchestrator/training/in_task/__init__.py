"""Checkpoints inside a task: what a task is amid its steps, and when that is written and found again."""
