#!/usr/bin/env bash
# minio (Python client): a damaged XML answer raises ParseError, which is a SyntaxError, and none of the client's errors.
#
# Expected: an answer that is no S3 XML (cut off, or a proxy's login page with status 200) raises a MinioException, as the same
#   answer with status 404 does, so that `except MinioException` is enough.
# Happens: list_objects raises xml.etree.ElementTree.ParseError (a subclass of SyntaxError) for a cut answer, and a bare
#   ValueError for a login page.
# Hurts: who handles the client's documented errors (a retry, a message in one line): these two end in a traceback.
# Fails if the behaviour changes. Needs python3 with venv and a package index; the server is this machine.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check minio==7.2.20
cat > "$work/check.py" <<'PY'
import http.server
import importlib.metadata
import sys
import threading

from minio import Minio
from minio.error import MinioException

BODIES = {"cut off": b"<ListBucketResult><Name>buck", "login page": b"<html>log in</html>"}
body = b""


class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = Minio(f"127.0.0.1:{server.server_port}", "access", "secret-key", secure=False, region="us-east-1")
found = {}
for name, body in BODIES.items():
    try:
        list(client.list_objects("bucket"))
    except Exception as error:
        found[name] = [type(error).__name__, isinstance(error, MinioException), isinstance(error, SyntaxError)]
print("minio", importlib.metadata.version("minio"))
print(found)
expected = {"cut off": ["ParseError", False, True], "login page": ["ValueError", False, False]}
sys.exit(0 if found == expected else "the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py"
