"""Where an output folder may be: on a disk, or below a bucket of an object store.

Both are handled by the methods of a `Path`. What object stores do otherwise has its home here: they know no appending, no
renaming and no locks of an operating system.
"""
