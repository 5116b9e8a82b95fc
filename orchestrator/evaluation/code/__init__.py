"""Programs that a model writes: running them within limits, and scoring them."""
