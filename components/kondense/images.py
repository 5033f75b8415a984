"""Image references: one environment look-up each, with a default. Stdlib only."""

import os

# kfp's SubprocessRunner warns about images without "python" in their names.
STAGE_IMAGE = os.environ.get("KONDENSE_STAGE_IMAGE", "kondense/stage-python:0.1.0")
SUGGESTION_IMAGE = os.environ.get("KONDENSE_SUGGESTION_IMAGE", "kondense/suggestion-python:0.1.0")
