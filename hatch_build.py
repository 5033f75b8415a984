"""Writes the source revision into wheels and source archives, where no git can tell it."""

import runpy
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

VERSION = "components/kondense/version.py"
PLACES = {"wheel": "kondense/revision.txt", "sdist": "components/kondense/revision.txt"}


class RevisionHook(BuildHookInterface[Any]):
    """Adds ``revision.txt`` beside ``version.py``; an editable install is a checkout and needs none."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Write the file into a scratch directory and include it."""
        revision = runpy.run_path(str(Path(self.root, VERSION)))["source_revision"]()
        if version == "editable" or not revision:
            return
        path = Path(self.directory, "revision.txt")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(revision + "\n", encoding="utf-8")
        build_data["force_include"][str(path)] = PLACES[self.target_name]

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the scratch file from the folder of distributions."""
        Path(self.directory, "revision.txt").unlink(missing_ok=True)
