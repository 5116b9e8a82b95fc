"""From a configuration to the sequences that it asks for, and the keys that name what each of them makes."""
