"""Formulas over what happened amid training, and over more than one run."""
