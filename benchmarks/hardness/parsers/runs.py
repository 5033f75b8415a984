"""Runs: the cache of finished steps, what kfp tells a step."""

import json
from pathlib import Path
from typing import Any

from benchmarks.hardness.parsers.parser import Parser, as_json


def _entries(scratch: Path) -> list[bytes]:
    from kfp import dsl
    from kondense_pipelines.local.cache import ContentCache

    model = scratch / "artifacts/run/train/model"
    model.mkdir(parents=True)
    (model / "weights").write_bytes(b"x")
    cache = ContentCache(scratch / "steps", "version")
    cache.put("key", {"model": dsl.Model(name="model", uri=str(model), metadata={"a": 1.0}), "Output": "text"})
    (path,) = (scratch / "steps").iterdir()
    return as_json(json.loads(path.read_bytes())["content"])


def _read_entry(content: bytes, scratch: Path) -> object:
    """Read an entry whose own digest is right."""
    from kondense.json_text import json_value
    from kondense_pipelines.local.cache import FORMAT_VERSION, ContentCache, digest, drop_unused

    outputs = json_value(content, "entry")
    (path,) = (scratch / "steps").iterdir()
    path.write_text(json.dumps({"format_version": FORMAT_VERSION, "sha256": digest(outputs), "content": outputs}))
    drop_unused(scratch / "steps", scratch / "none", 0.0)
    return ContentCache(scratch / "steps", "version", lambda line: None).get("key")


def _executor_inputs(_: Path) -> list[bytes]:
    def artifact(kind: str, name: str) -> dict[str, Any]:
        found = {"name": name, "uri": f"/tmp/kondense-none/{name}", "type": {"schemaTitle": f"system.{kind}"}}
        return {"artifacts": [{**found, "metadata": {}}]}

    return as_json(
        {
            "inputs": {
                "parameterValues": {"name": "pruned", "epochs": 3},
                "artifacts": {"model": artifact("Model", "m")},
            },
            "outputs": {
                "artifacts": {"model": artifact("Model", "n"), "view": artifact("HTML", "v")},
                "outputFile": "/tmp/kondense-none/executor_output.json",
            },
        }
    )


def _read_executor_input(content: bytes, _: Path) -> object:
    from kondense_pipelines.local.run import executor_input, has_failed

    command = ["python", "--executor_input", content.decode(errors="replace")]
    return executor_input(command), has_failed(command)


PARSERS = (
    Parser("entry of the step cache", "json", _entries, _read_entry),
    Parser("executor input", "json", _executor_inputs, _read_executor_input, 0.5),
)
