"""Methods that update only some output units of each layer."""
