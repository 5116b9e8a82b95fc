"""The contract that every method keeps, ours and anyone's: `orchestrator check-method`, and our own tests."""
