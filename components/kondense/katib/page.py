"""One self-contained HTML page of a search: page.html with the results.

Data, styles and drawing code are inline, so that it needs no network and also works in a sandboxed frame.
"""

import html
import json
import re
from importlib import resources
from pathlib import Path
from typing import Any

from kondense.files import write_file

TEMPLATE = "page.html"
UI_NAMESPACE = "kubeflow"  # default namespace of Katib's pages
TITLE, DATA, TABLE = "{{title}}", "{{data}}", "{{table}}"


def write(path: Path, summary: dict[str, Any]) -> None:
    """Write the page of a search, completely or not at all.

    Args:
        path: the file.
        summary: the content of ``results.json``.
    """
    write_file(path, render(summary).encode())


def address(ui: str, namespace: str, experiment: str) -> str:
    """Return the address of an Experiment in Katib's pages.

    Args:
        ui: address of Kubeflow's dashboard, with or without its ``/_``, or of Katib's pages; if empty, the text
            describes a port-forward to them.
        namespace: of the Experiment.
        experiment: its name.

    Source: app-routing.module.ts of Katib's pages, which are built for the base ``/katib/``.
    """
    path = f"/katib/experiment/{namespace}/{experiment}"
    if ui:
        return ui.rstrip("/").removesuffix("/katib") + path
    return f"http://localhost:8081{path} after kubectl -n {UI_NAMESPACE} port-forward service/katib-ui 8081:80"


def render(summary: dict[str, Any]) -> str:
    """Return the page's text."""
    template = resources.files("kondense.katib").joinpath(TEMPLATE).read_text(encoding="utf-8")
    # In a script element only "<" could end the data; JSON allows it as an escape.
    data = json.dumps(summary, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    title = html.escape(f"{summary['experiment']}: {summary['algorithm']}")
    parts = {TITLE: title, TABLE: _table(summary), DATA: data}
    # In one pass: what is filled in may hold the other marks.
    return re.sub("|".join(map(re.escape, parts)), lambda mark: parts[mark[0]], template)


def _table(summary: dict[str, Any]) -> str:
    """Return the trials as a table, best first: readable without scripts."""
    sign = -1.0 if summary["objective"]["type"] == "maximize" else 1.0
    names = [parameter["name"] for parameter in summary["parameters"]]
    metrics = [summary["objective"]["metric"], *summary["objective"]["additional"]]
    trials = sorted(
        summary["trials"],
        key=lambda t: (-(t["resource"] or 0.0), t["value"] is None, sign * (t["value"] or 0.0)),
    )
    head = "".join(f"<th>{html.escape(title)}</th>" for title in ["trial", "status", *metrics, *names, "seconds"])
    return f"<thead><tr>{head}</tr></thead><tbody>{''.join(_row(t, metrics, names) for t in trials)}</tbody>"


def _row(trial: dict[str, Any], metrics: list[str], names: list[str]) -> str:
    status = trial["status"].replace("_", " ") + (f": {trial['reason']}" if trial["reason"] else "")
    seconds = "" if trial["seconds"] is None else f"{trial['seconds']:.1f}"
    cells = [trial["name"], status]
    cells += [trial["metrics"].get(metric, "") for metric in metrics]
    cells += [trial["assignments"].get(name, "") for name in names]
    return "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in [*cells, seconds]) + "</tr>"
