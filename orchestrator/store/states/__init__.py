"""How a state gets onto the disk: files that are hashed while they are written, a writer beside training, differences."""
