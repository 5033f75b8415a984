#!/usr/bin/env bash
# urllib3: the limit of time to connect also limits how long the whole body of a request may take to be sent.
#
# Expected: Timeout(connect=1, read=30) limits the connection attempt to 1 s, as its reference says: "the maximum amount of time to
#   wait for a connection attempt to a server to succeed". A server that takes the body slowly, but all the time, gets it.
# Happens: a body of bytes is sent by one sendall under the limit to connect, on a connection that has long been made, too: after
#   1 s there is a ProtocolError("Connection aborted.", TimeoutError) although data flow.
# Hurts: who uploads files on a slow line with a short limit to connect: a part of 16 MiB with connect=5 needs 27 Mbit/s upwards,
#   each retry breaks off at the same place, and the error reads as if the server could not be reached.
# Fails if the behaviour changes. Needs python3 with venv and a package index; the server is this machine.
# Source: https://urllib3.readthedocs.io/en/stable/reference/urllib3.util.html#urllib3.util.Timeout
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check urllib3==2.7.0
cat > "$work/check.py" <<'PY'
import socket
import sys
import threading
import time

import urllib3

BODY = bytes(2**24)
listening = socket.socket()
listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2**16)
listening.bind(("127.0.0.1", 0))
listening.listen()


def talk(connection):
    """Answer requests; take bodies at some 5 MB/s."""
    while content := connection.recv(2**16):
        head, _, rest = content.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
        got = len(rest)
        while got < length and (piece := connection.recv(2**16)):
            got += len(piece)
            time.sleep(len(piece) / 5e6)
        if got == length:
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def serve():
    while True:
        threading.Thread(target=talk, args=(listening.accept()[0],), daemon=True).start()


threading.Thread(target=serve, daemon=True).start()
url = f"http://127.0.0.1:{listening.getsockname()[1]}"
limits = urllib3.Timeout(connect=1.0, read=30.0)
pool = urllib3.PoolManager(timeout=limits, retries=False)


def put():
    try:
        return pool.request("PUT", url, body=BODY).data
    except urllib3.exceptions.ProtocolError as error:
        return type(error.args[1]).__name__


print("urllib3", urllib3.__version__)
found = {"a new connection": put()}
pool.request("GET", url)
found["a connection used before"] = put()
pool = urllib3.PoolManager(timeout=urllib3.Timeout(connect=30.0, read=30.0), retries=False)
found["with 30 s to connect"] = put()
print(found)
sys.exit(0 if list(found.values()) == ["TimeoutError", "TimeoutError", b"ok"] else "the behaviour has changed")
PY
"$work/venv/bin/python" "$work/check.py"
