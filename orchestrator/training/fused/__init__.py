"""Several sequences whose steps are computed in one pass: where they meet, and how each runs."""
