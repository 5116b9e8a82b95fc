"""Low-rank adapters: one for all tasks, or one a task."""
