"""``python -m kondense.preflight FILE``: examine the request in a file; one line of JSON per check on its output."""

import dataclasses
import json
import sys
import warnings
from pathlib import Path

from kondense.heap import uncollected


def main() -> None:
    """Examine, and print what was found."""
    warnings.filterwarnings("ignore")
    with uncollected(kept=True):
        from kondense.preflight.examine import examine
        from kondense.preflight.request import Request

    request = Request.from_json(Path(sys.argv[1]).read_text(encoding="utf-8"))
    for check in examine(request):
        print(MARK + json.dumps(dataclasses.asdict(check)), flush=True)


MARK = "check "  # the lines of the output that are checks; a network may print others

if __name__ == "__main__":
    main()
