"""A headless Chromium that opens a page the way the KFP UI does and answers what a script finds there."""

import contextlib
import html
import http.server
import json
import queue
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
    "--enable-logging=stderr",
)
DARK = "--blink-settings=preferredColorScheme=0"
PATIENCE_S = 300
# First in the page, so that no error escapes it.
LISTEN = """
<script>
window.problems = [];
addEventListener("error", (event) => problems.push(String(event.message || event.target.outerHTML)), true);
addEventListener("unhandledrejection", (event) => problems.push(String(event.reason)));
addEventListener("securitypolicyviolation", (event) => problems.push(`${event.violatedDirective} ${event.blockedURI}`));
</script>
"""
# Last in the page. A frame in a process of its own learns its size only some time after it has loaded, so the
# script waits until the page has the width it should have and has kept its height for a while.
PROBE = """
<script>
let height = 0;
const probe = () => {
  const { clientWidth, scrollHeight } = document.documentElement;
  const settled = clientWidth === WIDTH && scrollHeight === height;
  height = scrollHeight;
  if (!settled) return setTimeout(probe, 100);
  const answer = {};
  SCRIPT
  answer.problems = problems;
  parent.postMessage(JSON.stringify(answer), "*");
};
addEventListener("load", probe);
</script>
"""
# The sandbox of the KFP UI: scripts run, but the frame has no origin, no storage, no parent to look into.
FRAME = """<!DOCTYPE html><meta charset="utf-8"><style>body {{ margin: 0 }} iframe {{ border: 0 }}</style>
<script>addEventListener("message", ({{ data }}) => fetch("/answer", {{ method: "POST", body: data }}));</script>
<iframe sandbox="allow-scripts" width="{width}" height="{height}" srcdoc="{page}"></iframe>
"""


def chromium() -> str:
    """Return the browser's command, or fail with how to install it."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.fail("the report's page is tested in Chromium, which is missing: apt-get install chromium", pytrace=False)


def ask(page: Path, script: str, profile: Path, *, width: int, height: int = 900, dark: bool = False) -> dict:
    """Open ``page`` in a sandboxed frame of that size and return what ``script`` leaves in ``answer``.

    Args:
        page: an HTML file.
        script: JavaScript that fills the object ``answer`` once the page has loaded.
        profile: a new directory for the browser's own files.
        width: of the frame, in pixels.
        height: of the frame, in pixels.
        dark: whether the reader prefers a dark page.

    Returns:
        The answer, with ``problems`` (errors and refused loads in the page) and ``console`` (its messages).
    """
    probe = PROBE.replace("WIDTH", str(width)).replace("SCRIPT", script)
    text = page.read_text(encoding="utf-8")
    text = text.replace("<head>", f"<head>{LISTEN}", 1).replace("</body>", f"{probe}</body>", 1)
    outer = FRAME.format(width=width, height=height, page=html.escape(text))
    profile.mkdir()
    flags = [
        *FLAGS,
        f"--window-size={max(width, 500)},{height}",
        f"--user-data-dir={profile}",
        *([DARK] if dark else []),
    ]
    log = profile.with_suffix(".log")
    with serve(outer) as (address, answers), log.open("wb") as stderr:
        browser = subprocess.Popen([chromium(), *flags, address], stdout=subprocess.DEVNULL, stderr=stderr)
        try:
            answer = json.loads(answers.get(timeout=PATIENCE_S))
        except queue.Empty:
            pytest.fail(f"the page gave no answer in {PATIENCE_S} s; the browser said:\n{log.read_text()[-2000:]}")
        finally:
            browser.terminate()
            browser.wait(timeout=120)
    answer["console"] = re.findall(r"CONSOLE.*", log.read_text(errors="replace"))
    return answer


@contextlib.contextmanager
def serve(page: str) -> Iterator[tuple[str, queue.Queue]]:
    """Serve one page on this machine; yield its address and the queue of what is posted back."""
    answers: queue.Queue = queue.Queue()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):  # noqa: N802 - the name that http.server calls
            self.reply(page.encode() if self.path == "/" else b"")

        def do_POST(self):  # noqa: N802
            answers.put(self.rfile.read(int(self.headers["Content-Length"])))
            self.reply(b"")

        def reply(self, content):
            self.send_response(200)
            self.send_header("Content-Type", "text/html; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            """Keep quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/", answers
        finally:
            server.shutdown()
            thread.join()
