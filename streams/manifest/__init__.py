"""What is known of published data sets: how many rows their files have, the hashes of these, and which copies are about."""

from streams.manifest.published import FileCheck, Verdict, file_checker, published_sizes, verdict_of

__all__ = ["FileCheck", "Verdict", "file_checker", "published_sizes", "verdict_of"]
