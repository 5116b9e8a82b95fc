"""`orchestrator verify`: whether every file of an experiment is what was written, and what can be done where one is not."""
