"""Updates that are kept within, or out of, chosen subspaces."""
