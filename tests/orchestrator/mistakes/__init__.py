"""A corpus of malformed inputs, drawn with hypothesis from a fixed seed, each of which must end in one short line."""
