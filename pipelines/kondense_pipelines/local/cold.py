"""``python -m kondense_pipelines.local.cold PARENT MODULE ARGUMENT...``: ``python -m MODULE``, killed with its parent.

So that no stage goes on, and writes, after the command that started it was killed.
"""

import ctypes
import os
import signal
import sys

from kondense_pipelines.local.warm_server import PR_SET_PDEATHSIG, execute


def main() -> int:
    """Run the module and return its exit code."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != int(sys.argv[1]):  # it has ended already
        return 128 + signal.SIGKILL
    sys.argv = sys.argv[2:]
    return execute()


if __name__ == "__main__":
    sys.exit(main())
