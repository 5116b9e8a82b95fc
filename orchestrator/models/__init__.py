"""Where a model comes from, and one file for each family of models."""
