"""Image references: one environment variable each, with a default. Stdlib only."""

import os

from kondense.version import __version__

# kfp's SubprocessRunner warns about images without "python" in their names.
STAGE_IMAGE = os.environ.get("KONDENSE_STAGE_IMAGE", f"kondense/stage-python:{__version__}")
SUGGESTION_IMAGE = os.environ.get("KONDENSE_SUGGESTION_IMAGE", f"kondense/suggestion-python:{__version__}")
