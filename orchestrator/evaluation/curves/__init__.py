"""Scores amid training, and formulas over these and over more than one run."""
