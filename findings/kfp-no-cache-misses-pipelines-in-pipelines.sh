#!/usr/bin/env bash
# KFP SDK: `enable_caching=False` turns the cache off for the tasks of the outermost pipeline only.
#
# Expected: a run that is started with enable_caching=False takes no result of an earlier run, whatever its graph looks like.
# Happens: the client writes the option into the root's tasks. The tasks of a pipeline that is used as a component keep
#   `enableCache: true`, so the graph within is answered from the cache: the very steps that one wanted to run again.
# Hurts: who runs again because data behind an unchanged address have changed, and gets the old models without a word.
# Fails if the behaviour changes. Needs python3 with venv and a package index; the server here only writes down what comes.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check kfp==2.17.0
cat > "$work/check.py" <<'PY'
import http.server
import json
import sys
import threading
import warnings

import kfp
from kfp import compiler, dsl

warnings.simplefilter("ignore")
RUNS = []


class Server(http.server.BaseHTTPRequestHandler):
    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.command == "POST" and self.path.endswith("/runs"):
            RUNS.append(json.loads(body))
        content = json.dumps({"run_id": "1", "experiment_id": "1", "multi_user": False}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = answer

    def log_message(self, *arguments):
        pass


@dsl.component(base_image="python:3.11", install_kfp_package=False, packages_to_install=[])
def step() -> int:
    return 1


@dsl.pipeline(name="inner")
def inner() -> int:
    return step().output


@dsl.pipeline(name="outer")
def outer():
    step()
    inner()


print("kfp", kfp.__version__)
package = sys.argv[1] + "/outer.yaml"
compiler.Compiler().compile(outer, package)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = kfp.Client(host=f"http://127.0.0.1:{server.server_port}", namespace="kubeflow")
client.run_pipeline("1", "run", pipeline_package_path=package, enable_caching=False)
spec = RUNS[0]["pipeline_spec"]
spec = spec.get("pipeline_spec", spec)
graphs = {"root": spec["root"], **{name: each for name, each in spec["components"].items() if "dag" in each}}
found = {
    f"{graph}/{name}": task.get("cachingOptions", {}).get("enableCache", False)
    for graph, each in graphs.items()
    for name, task in each["dag"]["tasks"].items()
}
print("sent, by task: enableCache =", found)
expected = {"root/step": False, "root/inner": False, "comp-inner/step": True}
sys.exit(0 if found == expected else "the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py" "$work" 2>&1 | grep -v -e Warning -e "details:" -e "^$"
exit "${PIPESTATUS[0]}"
