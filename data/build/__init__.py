"""The seeded scripts that make every file of ``data/``."""
