"""A process that imports the large libraries and forks one child per stage.

Importing torch and torchvision takes seconds, and a run has some twenty stages; a fork takes milliseconds.
``kondense_pipelines.local.warm`` starts ``python -m kondense_pipelines.local.warm_server FD [!]MODULE[:FUNCTION]...``
and has the other end of the socket FD. Modules with a ``!`` are imported before the first request is answered. If that
end closes, for any reason, the children are killed and the server ends, so no process outlives the command.

A request on the control socket is the length as eight bytes, with two file descriptors (the task's socket and its
output), then JSON {argv, env, cwd, session}. The answers on the task's socket are lines of JSON: {"pid"}, which the
child writes once it leads a session of its own if `session` asks for one, then {"status"} as ``waitpid`` returns it;
or {"refused": reason}.
"""

import atexit
import collections
import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import selectors
import signal
import socket
import sys
import traceback
from pathlib import Path
from typing import Any

LENGTH_BYTES = 8
EXECUTOR = "kfp.dsl.executor_main"
PR_SET_PDEATHSIG = 1  # linux/prctl.h


class Server:
    """The state of the fork server: the modules that remain to be imported, and the children by pidfd."""

    def __init__(self, control: socket.socket, modules: list[str]) -> None:
        self.control = control
        self.modules = collections.deque(modules)
        self.children: dict[int, tuple[int, socket.socket]] = {}
        self.leaders: set[int] = set()  # the children with a session of their own
        self.selector = selectors.DefaultSelector()
        self.selector.register(control, selectors.EVENT_READ)

    def serve(self) -> None:
        """Answer requests until the control socket closes; import the next module whenever idle."""
        while self.modules and self.modules[0].startswith("!"):
            preload(self.modules.popleft()[1:])
        while True:
            ready = self.selector.select(timeout=0 if self.modules else None)
            if not ready:
                preload(self.modules.popleft())
            for key, _ in ready:
                if key.fileobj is not self.control:
                    self.reap(key.fd)
                elif not self.accept():
                    self.kill_children()
                    return

    def accept(self) -> bool:
        """Read one request and fork its child; return False if the socket was closed."""
        request = receive(self.control)
        if request is None:
            return False
        payload, task, output = request
        if threads() > 1:
            # A fork copies only the calling thread; a lock that another thread holds would never be released.
            send(task, {"refused": f"{threads()} threads run in the warm server"})
            task.close()
            os.close(output)
            return True
        gc.freeze()  # the child's collector need not look over, and so copy, what has been imported
        pid = os.fork()
        if pid == 0:
            self.close_copies()
            if payload["session"]:
                os.setsid()
            send(task, {"pid": os.getpid()})
            task.close()
            become(payload, output)
        os.close(output)
        if payload["session"]:
            self.leaders.add(pid)
        pidfd = os.pidfd_open(pid)
        self.children[pidfd] = (pid, task)
        self.selector.register(pidfd, selectors.EVENT_READ)
        return True

    def reap(self, pidfd: int) -> None:
        """Report the exit status of the child of ``pidfd``."""
        pid, task = self.children.pop(pidfd)
        self.selector.unregister(pidfd)
        os.close(pidfd)
        _, status = os.waitpid(pid, 0)
        self.leaders.discard(pid)
        send(task, {"status": status})
        task.close()

    def close_copies(self) -> None:
        """Close, in a new child, the descriptors of the server."""
        self.selector.close()
        self.control.close()
        for pidfd, (_, task) in self.children.items():
            os.close(pidfd)
            task.close()

    def kill_children(self) -> None:
        """Kill every child, with the processes of its session; stages and trials are resumable."""
        for pid, _ in self.children.values():
            os.kill(pid, signal.SIGKILL)
            if pid in self.leaders:
                with contextlib.suppress(ProcessLookupError):  # it has not become the leader yet
                    os.killpg(pid, signal.SIGKILL)


def preload(entry: str) -> None:
    """Import ``module``, or call ``module:function``; a failure is only printed, since the stage will report it."""
    module, _, function = entry.partition(":")
    gc.disable()  # which takes a quarter of the time and finds next to nothing; each fork freezes what there is
    try:
        imported = importlib.import_module(module)
        without_monitor()
        if function:
            getattr(imported, function)()
    except Exception as error:  # third-party packages may raise anything
        print(f"warm server: could not preload {entry}: {error}", flush=True)
    finally:
        gc.enable()


def without_monitor() -> None:
    """Keep tqdm, where it is installed, from starting a thread: torch.fx makes a bar, though hidden, for each run."""
    if "tqdm" in sys.modules:
        sys.modules["tqdm"].tqdm.monitor_interval = 0  # tqdm's own way to run without its monitor


def threads() -> int:
    """Return the number of threads of this process."""
    return len(list(Path("/proc/self/task").iterdir()))


def receive(control: socket.socket) -> tuple[dict[str, Any], socket.socket, int] | None:
    """Read one request: its JSON, the task's socket, the output's descriptor; None if the socket was closed."""
    header, descriptors, _, _ = socket.recv_fds(control, LENGTH_BYTES, 2)
    if len(header) < LENGTH_BYTES:
        return None
    remaining = int.from_bytes(header, "big")
    chunks = []
    while remaining:
        chunk = control.recv(min(remaining, 1 << 16))
        if not chunk:
            return None
        chunks.append(chunk)
        remaining -= len(chunk)
    return json.loads(b"".join(chunks)), socket.socket(fileno=descriptors[0]), descriptors[1]


def send(task: socket.socket, answer: dict[str, Any]) -> None:
    """Write one answer, unless the task's reader has closed its socket."""
    try:
        task.sendall(json.dumps(answer).encode() + b"\n")
    except (BrokenPipeError, ConnectionResetError):
        return


def become(payload: dict[str, Any], output: int) -> None:
    """Turn this new child into ``python -m`` with the request's module and arguments; never returns."""
    code = 1
    try:
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        os.dup2(output, 1)
        os.dup2(output, 2)
        os.close(output)
        sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
        os.environ.clear()
        os.environ.update(payload["env"])
        os.chdir(payload["cwd"])
        sys.argv = payload["argv"]
        code = execute()
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code)  # without the interpreter's teardown, which takes torch a large part of a second


def execute() -> int:
    """Run the module that ``sys.argv`` names, as ``python -m`` does, and return its exit code."""
    try:
        if sys.argv[0] == EXECUTOR:  # imported already
            importlib.import_module(EXECUTOR).executor_main()
        else:
            runpy.run_module(sys.argv[0], run_name="__main__")
    except SystemExit as error:
        if error.code is None or isinstance(error.code, int):
            return error.code or 0
        print(error.code, file=sys.stderr)
        return 1
    except BaseException:  # the end of the process: print it as the interpreter does
        traceback.print_exc()
        return 1
    return 0


def main() -> None:
    """Serve on the socket whose descriptor is the first argument; the others name the modules to import."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C ends the command and the stage
    control = socket.socket(fileno=int(sys.argv[1]))
    Server(control, sys.argv[2:]).serve()


if __name__ == "__main__":
    main()
