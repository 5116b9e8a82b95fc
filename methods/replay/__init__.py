"""Old examples, trained again or used as constraints."""
