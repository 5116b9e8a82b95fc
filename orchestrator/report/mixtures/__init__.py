"""Which share of a mixture is best, from finished runs."""
