"""What a user may ask for, and reading it from YAML."""
