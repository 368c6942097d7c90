"""Python imports this at its start where this folder is on PYTHONPATH."""

import os

import network_guard

if network_guard.LOG in os.environ:
    network_guard.install()
