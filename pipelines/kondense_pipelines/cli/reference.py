"""The page docs/parameters.md: ``python -m kondense_pipelines.cli.reference > docs/parameters.md``."""

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any

from kondense.stages import BUILT_IN, Stage

INTRODUCTION = """# Parameters

Made from the stages' Configs by `python -m kondense_pipelines.cli.reference > docs/parameters.md`; do not edit.

A parameter `epochs` of the stage prune is `--set prune.epochs=4` of `kondense run` and `kondense compile`,
`--epochs 4` of `python -m kondense.cli prune`, `epochs=4` of `kd.prune`, and an input of the KFP component."""


def reference() -> str:
    """Return the page, one table per stage."""
    return "\n".join([INTRODUCTION, *(line for stage in BUILT_IN for line in chapter(stage)), ""])


def chapter(stage: Stage) -> Iterator[str]:
    """Yield the lines of one stage: the parameters that its Config declares, then those that it inherits."""
    config = stage.config_class
    yield from ("", f"## {stage.name}", "", f"{stage.summary[0].upper()}{stage.summary[1:]}.", "")
    yield from ("| parameter | type | default | allowed | description |", "|---|---|---|---|---|")
    hints = typing.get_type_hints(config)
    declared = vars(config).get("__annotations__", {})
    for field in sorted(dataclasses.fields(config), key=lambda field: field.name not in declared):
        cells = (
            f"`{field.name}`",
            hints[field.name].__name__,
            shown(field.default),
            allowed(field),
            field.metadata["description"],
        )
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def allowed(field: "dataclasses.Field[Any]") -> str:
    """Return a field's interval or choices."""
    return str(field.metadata["interval"]) or ", ".join(f"`{choice}`" for choice in field.metadata["choices"])


def shown(value: Any) -> str:
    """Return a default as users write it."""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`" if value != "" else "empty"


if __name__ == "__main__":
    print(reference(), end="")
