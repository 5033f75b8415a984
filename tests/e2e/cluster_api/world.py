"""The fake cluster: an API server, and players in the place of controllers and kubelets.

A player is a generator; a thread lets each go on to its next ``yield`` again and again. What they do is said in their
own modules. Pods are played: nothing is scheduled, pulled or executed.
"""

import contextlib
import threading
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.cluster_api.kinds import BY_PLURAL, Kind
from tests.e2e.cluster_api.objects import ApiError, Object, Objects
from tests.e2e.cluster_api.server import Server, serve

TICK_S = 0.01
NAMESPACE = "kubeflow"
Player = Generator[None, None, Any]


@dataclass
class World:
    """Everything that the players share.

    Attributes:
        server: the API server; its objects are the cluster's.
        faults: names of what goes wrong on purpose.
        players: those at work.
        controllers: what is called with a new object of a plural; it returns its player.
        logs: a pod's log, by the pod's uid.
        evicted: uids of pods that were evicted.
        held: by an Experiment's name: all its trials but the first run until this tells that they may end.
        errors: what players died of.
    """

    server: Server
    faults: set[str] = field(default_factory=set)
    players: list[Player] = field(default_factory=list)
    controllers: dict[str, Callable[[Object], Player | None]] = field(default_factory=dict)
    logs: dict[str, str] = field(default_factory=dict)
    evicted: set[str] = field(default_factory=set)
    held: dict[str, Callable[[], bool]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)
    ended: threading.Event = field(default_factory=threading.Event)

    @property
    def objects(self) -> Objects:
        """The cluster's objects."""
        return self.server.objects

    def begin(self, kind: Kind, found: Object) -> None:
        """Start the player of a new object."""
        player = self.controllers.get(kind.plural, lambda found: None)(found)
        if player is not None:
            self.players.append(player)

    def play(self) -> None:
        """Let the players go on until the world ends."""
        import traceback

        while not self.ended.wait(TICK_S):
            for player in list(self.players):
                try:
                    next(player)
                except StopIteration:
                    self.players.remove(player)
                except Exception:  # a player of a test: whatever it dies of must be seen
                    self.errors.append(traceback.format_exc())
                    self.players.remove(player)

    def create(self, plural: str, body: Object) -> Object:
        """Create an object."""
        return self.objects.create(BY_PLURAL[plural], NAMESPACE, body)

    def find(self, plural: str, name: str) -> Object | None:
        """Return an object; None when there is none."""
        return self.objects.find(plural, NAMESPACE, name)

    def alive(self, plural: str, found: Object) -> bool:
        """Tell whether this very object is still there."""
        now = self.find(plural, found["metadata"]["name"])
        return now is not None and now["metadata"]["uid"] == found["metadata"]["uid"]

    def set_status(self, plural: str, name: str, status: Mapping[str, Any]) -> None:
        """Replace fields of an object's status; nothing happens when it has gone."""
        with contextlib.suppress(ApiError):
            self.objects.change(
                BY_PLURAL[plural],
                NAMESPACE,
                name,
                lambda found: {**found, "status": {**found.get("status", {}), **status}},
            )

    def delete(self, plural: str, name: str) -> None:
        """Delete an object; nothing happens when it has gone."""
        with contextlib.suppress(ApiError):
            self.objects.delete(BY_PLURAL[plural], NAMESPACE, name)

    def log_of(self, namespace: str, name: str) -> str:
        """Return a pod's log."""
        pod = self.objects.get(BY_PLURAL["pods"], namespace, name)
        return self.logs.get(pod["metadata"]["uid"], "")

    def warn(self, kind: str, name: str, reason: str, message: str) -> None:
        """Make a warning."""
        about = {"kind": kind, "name": name, "namespace": NAMESPACE}
        body = {"metadata": {"generateName": f"{name}."}, "involvedObject": about, "type": "Warning"}
        self.create("events", {**body, "reason": reason, "message": message})


def owner(found: Object) -> list[Object]:
    """Return the ownerReferences of what an object owns."""
    metadata = found["metadata"]
    return [
        {"apiVersion": found["apiVersion"], "kind": found["kind"], "name": metadata["name"], "uid": metadata["uid"]}
    ]


@contextlib.contextmanager
def run_world() -> Iterator[World]:
    """Run an empty cluster with the namespace kubeflow and one node during the block."""
    objects = Objects()
    with serve(objects) as server:
        world = World(server)
        server.logs = world.log_of
        server.evict = lambda pod: world.evicted.add(pod["metadata"]["uid"])
        objects.created = world.begin
        for plural, name in (("namespaces", NAMESPACE), ("nodes", "node-1")):
            kind = BY_PLURAL[plural]
            objects.create(kind, "", {"apiVersion": "v1", "kind": kind.name, "metadata": {"name": name}})
        thread = threading.Thread(target=world.play, daemon=True)
        thread.start()
        try:
            yield world
        finally:
            world.ended.set()
            thread.join()
