"""What a model keeps beside its tasks: base abilities, and facts that it has seen a few times."""
