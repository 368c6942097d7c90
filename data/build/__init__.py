"""The seeded scripts that make every file of ``data/``."""

# Before torch: it bounds what oneDNN keeps of each shape of batch.
import ftlib  # noqa: F401
