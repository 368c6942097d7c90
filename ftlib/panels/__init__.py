"""Panels: controls that take and give plain values, each with a headless twin."""

from ftlib.panels.ask import AskPanel
from ftlib.panels.train import TrainingPanel

__all__ = ["AskPanel", "TrainingPanel"]
