"""The exercises' checks: each gives a hint for a wrong answer, None for a right one."""

from ftlib.exercises import beginning, shipping, training

CHECKS = beginning.CHECKS | training.CHECKS | shipping.CHECKS
"""What checks the answer, by the exercise's number."""
