"""Soft prompts, alone or one a task."""
