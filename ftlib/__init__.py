"""
ftlib: the rooms behind the fine-tuning course.

records -> redacted records -> examples -> tokens -> adapter -> predictions -> scores
-> report: each stage is a module of functions from one noun to the next. Importing
this package does no work and loads no model library; import the stage you need.
"""

import logging

# bitsandbytes advises, at import, to install `kernels`, which asks the hub each time.
logging.getLogger("bitsandbytes.backends.cpu.ops").setLevel(logging.ERROR)

__version__ = "0.1.0"
