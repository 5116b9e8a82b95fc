"""Weights that are read a part at a time, and those of another model that a method asks for."""
