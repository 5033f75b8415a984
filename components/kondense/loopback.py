"""The meeting place of the processes of one machine: a store that listens on the loopback interface alone.

torch's own stores listen on every interface, and what is in them is unpickled.
"""

import datetime
import socket

from torch.distributed import TCPStore  # type: ignore[attr-defined]
from torch.distributed.elastic.rendezvous import RendezvousHandler, RendezvousParameters, rendezvous_handler_registry
from torch.distributed.elastic.rendezvous.static_tcp_rendezvous import StaticTCPRendezvous

BACKEND = "kondense-loopback"
ADDRESS = "127.0.0.1"
TIMEOUT_S = 60


class LoopbackRendezvous(StaticTCPRendezvous):
    """The rendezvous of one agent, whose workers meet in its store."""

    def __init__(self, run_id: str) -> None:
        """Open the store.

        Raises:
            OSError: no port can be had.
        """
        with socket.create_server((ADDRESS, 0)) as server:
            port = server.getsockname()[1]
            super().__init__(ADDRESS, port, rank=0, world_size=1, run_id=run_id, timeout=TIMEOUT_S)
            self._store = TCPStore(
                ADDRESS,
                port,
                1,
                is_master=True,
                timeout=datetime.timedelta(seconds=TIMEOUT_S),
                master_listen_fd=server.detach(),
            )

    def get_backend(self) -> str:
        """Return the name under which it is registered."""
        return BACKEND


def register() -> str:
    """Make torch know the rendezvous, and return its name."""
    rendezvous_handler_registry.register(BACKEND, _handler)
    return BACKEND


def _handler(parameters: RendezvousParameters) -> RendezvousHandler:
    return LoopbackRendezvous(parameters.run_id)
