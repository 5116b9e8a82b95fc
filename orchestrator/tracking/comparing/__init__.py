"""Whether the copy in MLflow says what the journals say, and mending it where it does not."""
