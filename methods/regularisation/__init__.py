"""Penalties that hold old weights or old answers."""
