"""The reports of trials in Katib's database, through its manager's gRPC service."""

import re
import threading
from typing import Any

import grpc

from kondense.errors import InputError, KondenseError
from kondense.katib.api import NO_COMPRESSION, messages, services

TIMEOUT_S = 10.0  # of one call
ADDRESS = re.compile(r"(?:[A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]):[0-9]{1,5}")  # no other scheme of gRPC, such as unix:
MOST_ADDRESSES = 16  # whose connections are kept; Katib has one
LIMIT_BYTES = 32 * 2**20  # a log of 100,000 reports has about 6 MiB; gRPC's default limit is 4


class DatabaseError(KondenseError):
    """Katib's database manager did not answer."""


class ObservationLogs:
    """A client of ``api.v1.beta1.DBManager`` that keeps its connections; threads may share it."""

    def __init__(self, timeout_s: float = TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._stubs: dict[str, Any] = {}
        self._lock = threading.Lock()

    def read(self, address: str, trial: str, metric: str = "") -> list[tuple[str, str]]:
        """Return the names and values of a trial's reports in the order of their times; of one metric if it is given.

        Args:
            address: of the manager, HOST:PORT.
            trial: the trial's name.
            metric: empty for all.

        Raises:
            InputError: the address has another form.
            DatabaseError: the manager cannot be reached or refuses.
        """
        request = messages.GetObservationLogRequest(trial_name=trial, metric_name=metric)
        try:
            reply = self._stub(address).GetObservationLog(request, timeout=self._timeout_s)
        except grpc.RpcError as error:
            raise DatabaseError(
                f"Katib's database manager {address} must answer, but: {error.code().name}: {error.details()} "
                "(does a network policy keep the suggestion's pod from it?)."
            ) from None
        return [(entry.metric.name, entry.metric.value) for entry in reply.observation_log.metric_logs]

    def _stub(self, address: str) -> Any:
        if not ADDRESS.fullmatch(address):
            raise InputError(f"db_manager_address must be HOST:PORT, but got {address!r}.")
        with self._lock:
            if address not in self._stubs:
                if len(self._stubs) >= MOST_ADDRESSES:
                    self._stubs.clear()
                options = [
                    ("grpc.max_receive_message_length", LIMIT_BYTES),
                    ("grpc.compression_enabled_algorithms_bitset", NO_COMPRESSION),
                ]
                self._stubs[address] = services.DBManagerStub(grpc.insecure_channel(address, options=options))
            return self._stubs[address]
