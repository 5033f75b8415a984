"""What the fake API server keeps: objects by kind, namespace and name, and every change, for watches."""

import base64
import copy
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from tests.e2e.cluster_api.kinds import BY_PLURAL, Kind
from tests.support.fake_kubernetes import stamp

Object = dict[str, Any]
SPECS = ("metadata", "status")  # all but these count as what was asked for


class ApiError(Exception):
    """An answer that is a failure."""

    def __init__(self, code: int, reason: str, message: str) -> None:
        super().__init__(message)
        self.code, self.reason = code, reason


class Objects:
    """The objects.

    Attributes:
        changed: notified after every change.
        log: version, ADDED, MODIFIED or DELETED, plural and object of every change.
        created: called with kind and object after a creation.
    """

    def __init__(self) -> None:
        self.changed = threading.Condition(threading.RLock())
        self.items: dict[tuple[str, str, str], Object] = {}
        self.log: list[tuple[int, str, str, Object]] = []
        self.created: Callable[[Kind, Object], None] = lambda kind, found: None

    def create(self, kind: Kind, namespace: str, body: Object) -> Object:
        """Keep a new object and return it as it is kept."""
        with self.changed:
            made = copy.deepcopy(body)
            metadata = made.setdefault("metadata", {})
            if not metadata.get("name"):
                metadata["name"] = metadata.get("generateName", "") + uuid.uuid4().hex[:5]
            key = self._key(kind, namespace, metadata["name"])
            if key in self.items:
                raise ApiError(409, "AlreadyExists", f'{kind.qualified} "{metadata["name"]}" already exists')
            if kind.namespaced:
                metadata["namespace"] = namespace
            metadata |= {"uid": str(uuid.uuid4()), "creationTimestamp": stamp(time.time()), "generation": 1}
            _encode(made)
            self._keep(key, made, "ADDED")
        self.created(kind, copy.deepcopy(made))
        self._collect(kind, namespace, made)
        return copy.deepcopy(made)

    def _collect(self, kind: Kind, namespace: str, made: Object) -> None:
        """Delete an object whose owners have all gone before it was created, as the garbage collector does."""
        owners = {owner["uid"] for owner in made["metadata"].get("ownerReferences", ())}
        with self.changed:
            if owners and not owners & {each["metadata"]["uid"] for each in self.items.values()}:
                self.delete(kind, namespace, made["metadata"]["name"])

    def get(self, kind: Kind, namespace: str, name: str) -> Object:
        """Return an object."""
        with self.changed:
            found = self.items.get(self._key(kind, namespace, name))
            if found is None:
                raise ApiError(404, "NotFound", f'{kind.qualified} "{name}" not found')
            return copy.deepcopy(found)

    def find(self, plural: str, namespace: str, name: str) -> Object | None:
        """Return an object; None when there is none."""
        try:
            return self.get(BY_PLURAL[plural], namespace, name)
        except ApiError:
            return None

    def list(self, kind: Kind, namespace: str = "", labels: str = "", fields: str = "") -> list[Object]:
        """Return the objects of a kind that meet the selectors, by namespace and name."""
        with self.changed:
            found = [
                copy.deepcopy(each)
                for (plural, place, _), each in sorted(self.items.items())
                if plural == kind.plural and namespace in ("", place)
            ]
        return [each for each in found if matches(each, labels, fields)]

    def change(self, kind: Kind, namespace: str, name: str, change: Callable[[Object], Object]) -> Object:
        """Put what ``change`` makes of an object in its place; a change of what was asked for is a new generation."""
        with self.changed:
            before = self.get(kind, namespace, name)
            made = change(copy.deepcopy(before))
            wanted = made.get("metadata", {}).get("resourceVersion")
            if wanted not in (None, before["metadata"]["resourceVersion"]):
                raise ApiError(409, "Conflict", f'Operation cannot be fulfilled on {kind.qualified} "{name}"')
            kept = ("uid", "creationTimestamp", "namespace", "name", "generation")
            made["metadata"] |= {key: before["metadata"][key] for key in kept if key in before["metadata"]}
            _encode(made)
            if _asked(made) != _asked(before):
                if kind.plural == "jobs" and made["spec"]["template"] != before["spec"]["template"]:
                    raise ApiError(422, "Invalid", f'Job.batch "{name}" is invalid: spec.template: field is immutable')
                made["metadata"]["generation"] += 1
            if made != before:
                self._keep(self._key(kind, namespace, name), made, "MODIFIED")
            return copy.deepcopy(made)

    def delete(self, kind: Kind, namespace: str, name: str, uid: str = "") -> Object:
        """Delete an object and, as the garbage collector does, what it owns."""
        with self.changed:
            found = self.get(kind, namespace, name)
            if uid and uid != found["metadata"]["uid"]:
                raise ApiError(409, "Conflict", "the UID in the precondition does not match")
            del self.items[self._key(kind, namespace, name)]
            self._note("DELETED", kind.plural, found)
            for (plural, place, owned), each in list(self.items.items()):
                owners = [owner["uid"] for owner in each["metadata"].get("ownerReferences", ())]
                if found["metadata"]["uid"] in owners and (plural, place, owned) in self.items:
                    self.delete(BY_PLURAL[plural], place, owned)
            return found

    def watch(
        self, kind: Kind, namespace: str, since: int, selectors: tuple[str, str], until_s: float
    ) -> Iterator[Object]:
        """Yield the events after a version until the time is over."""
        seen = since
        while (left_s := until_s - time.monotonic()) > 0:
            with self.changed:
                if not self.log or self.log[-1][0] <= seen:
                    self.changed.wait(min(left_s, 0.2))
                events = [each for each in self.log if each[0] > seen]
            for version, event, plural, found in events:
                seen = version
                here = plural == kind.plural and namespace in ("", found["metadata"].get("namespace", ""))
                if here and matches(found, *selectors):
                    yield {"type": event, "object": found}
            yield {}

    @property
    def version(self) -> int:
        """The version of the last change."""
        return self.log[-1][0] if self.log else 1

    def _key(self, kind: Kind, namespace: str, name: str) -> tuple[str, str, str]:
        return kind.plural, namespace if kind.namespaced else "", name

    def _keep(self, key: tuple[str, str, str], made: Object, event: str) -> None:
        made["metadata"]["resourceVersion"] = str(self.version + 1)
        self.items[key] = made
        self._note(event, key[0], made)

    def _note(self, event: str, plural: str, found: Object) -> None:
        self.log.append((self.version + 1, event, plural, copy.deepcopy(found)))
        self.changed.notify_all()


def matches(found: Object, labels: str, fields: str) -> bool:
    """Tell whether an object meets selectors of the forms ``key=value``, ``key!=value`` and ``key``, by commas."""
    present = found["metadata"].get("labels") or {}
    for part in filter(None, labels.split(",")):
        key, equals, value = part.replace("==", "=").partition("=")
        if key.endswith("!"):
            if present.get(key[:-1]) == value:
                return False
        elif key not in present or (equals and present[key] != value):
            return False
    for part in filter(None, fields.split(",")):
        path, _, value = part.partition("=")
        place: Any = found
        for step in path.split("."):
            place = place.get(step, {}) if isinstance(place, dict) else {}
        if place != value:
            return False
    return True


def _asked(found: Object) -> Object:
    return {key: value for key, value in found.items() if key not in SPECS}


def _encode(made: Object) -> None:
    """Keep a Secret's stringData as the API server does."""
    plain = made.pop("stringData", None) if made.get("kind") == "Secret" else None
    if plain:
        encoded = {key: base64.b64encode(value.encode()).decode() for key, value in plain.items()}
        made["data"] = {**(made.get("data") or {}), **encoded}
