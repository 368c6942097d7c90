"""Panels: controls that take and give plain values, each with a headless twin."""

from ftlib.panels.ask import AskPanel
from ftlib.panels.blind import BlindPanel
from ftlib.panels.compare import ComparePanel
from ftlib.panels.data_card import DataCardPanel
from ftlib.panels.decision import DecisionPanel
from ftlib.panels.mask import MaskPanel
from ftlib.panels.memory import MemoryPanel
from ftlib.panels.project import ProjectPanel
from ftlib.panels.release import ReleasePanel
from ftlib.panels.review import ReviewPanel, bound_leak_rate
from ftlib.panels.scale import ScalePanel, answer_at_scale
from ftlib.panels.train import TrainingPanel

__all__ = [
    "AskPanel",
    "BlindPanel",
    "ComparePanel",
    "DataCardPanel",
    "DecisionPanel",
    "MemoryPanel",
    "MaskPanel",
    "ReleasePanel",
    "ProjectPanel",
    "ReviewPanel",
    "ScalePanel",
    "TrainingPanel",
    "answer_at_scale",
    "bound_leak_rate",
]
