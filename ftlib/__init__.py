"""
ftlib: the rooms behind the fine-tuning course.

records -> redacted records -> examples -> tokens -> adapter -> predictions -> scores
-> report: each stage is a module of functions from one noun to the next. Importing
this package does no work and loads no model library; import the stage you need.
"""

import gc
import logging
import os
import warnings

# bitsandbytes advises, at import, to install `kernels`, which asks the hub each time.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

# Before torch is loaded: on a CPU, oneDNN keeps what it made for each shape of batch it
# has met, 1,024 of them by default, which takes gigabytes over a few runs.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")

# peft 0.21 asks transformers 5.23 by a name that goes in version 6; a learner can do
# nothing about it.
warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing")

# The libraries make half a million objects at import, which stay: Python would look
# them through for garbage so often that it takes a fifth of the time.
gc.set_threshold(50_000, *gc.get_threshold()[1:])

__version__ = "0.1.0"
