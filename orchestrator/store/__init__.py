"""What is kept on disk: checkpoints, scores, journals, and who read a test split."""
