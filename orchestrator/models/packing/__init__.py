"""Corpora as blocks of token ids, which lie in files that are mapped into memory."""
