"""Run one command and end with the runner: the parent process of every local trial.

Started as ``python -S guard.py LIFELINE COMMAND...`` in a session of its own. LIFELINE is a file descriptor
whose other end the runner holds. When the runner ends, even by SIGKILL, the descriptor reads end-of-file and
the trial's process group is killed, so that no orphan keeps training next to its own repetition.

Stdlib only, and few modules of it, because every trial pays for their import.
"""

import os
import select
import signal
import sys


def main(lifeline: int, command: list[str]) -> int:
    """Run ``command`` until it or the lifeline ends.

    Args:
        lifeline: a readable file descriptor; nothing is written to its other end.
        command: the program and its arguments.

    Returns:
        Its exit status; 128 + n if signal n ended it; 127 if there is no such program.
    """
    os.set_inheritable(lifeline, False)
    # A handler, unlike SIG_IGN, is reset to the default in the child, so that SIGTERM can end it.
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, lambda *_: None)
    ended, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    try:
        child = os.posix_spawnp(command[0], command, os.environ)
    except OSError as error:
        print(f"cannot start {command[0]!r}: {error.strerror}", flush=True)
        return 127
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code
        readable, _, _ = select.select([lifeline, ended], [], [], 5.0)
        if lifeline in readable:
            os.killpg(0, signal.SIGKILL)
        if ended in readable:
            os.read(ended, 4096)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]), sys.argv[2:]))
