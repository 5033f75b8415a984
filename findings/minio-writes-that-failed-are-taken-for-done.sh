#!/usr/bin/env bash
# minio (Python client): a 200 whose body is an error, and a proxy's page, are taken for a finished upload.
#
# Expected: put_object raises where the server answers CompleteMultipartUpload with 200 and <Error> in the body, which S3's
#   reference says that it may do ("you must parse the body"), and where a 200 has neither an ETag nor a body of S3's.
# Happens: put_object returns an ObjectWriteResult whose etag is None, or the empty text; the object is not there.
# Hurts: who uploads an object of several parts, or through a proxy that asks for a login: it is lost, and nothing says so.
# Fails if the behaviour changes. Needs python3 with venv and a package index; the server is this machine.
# Source: https://docs.aws.amazon.com/AmazonS3/latest/API/API_CompleteMultipartUpload.html
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check minio==7.2.20
cat > "$work/check.py" <<'PY'
import http.server
import importlib.metadata
import io
import sys
import threading

from minio import Minio

BEGIN = b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>"
ERROR = b"<Error><Code>InternalError</Code><Message>We encountered an internal error.</Message></Error>"


class Handler(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        body = BEGIN if "uploads" in self.path else ERROR
        if self.command == "PUT":
            body = b"" if "partNumber" in self.path else b"<html>log in</html>"
        self.send_response(200)
        if "partNumber" in self.path:
            self.send_header("ETag", '"part"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_POST

    def log_message(self, *arguments):
        pass


server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
client = Minio(f"127.0.0.1:{server.server_port}", "access", "secret-key", secure=False, region="us-east-1")
part = 5 * 2**20
found = {
    "two parts, 200 with <Error>": client.put_object("bucket", "k", io.BytesIO(bytes(2 * part)), 2 * part, part_size=part).etag,
    "one part, a login page": client.put_object("bucket", "k", io.BytesIO(b"x"), 1).etag,
}
print("minio", importlib.metadata.version("minio"))
print(found)
sys.exit(0 if list(found.values()) == [None, ""] else "the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py"
