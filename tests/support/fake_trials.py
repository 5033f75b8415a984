"""Trials under early stopping: the subresource of their status, and Katib's metrics collector beside them."""

from kondense.katib.api import messages

from tests.support.fake_api import FakeApi


class KatibApi(FakeApi):
    """The API server with the status subresource of Trials; `meanwhile` patches lose against somebody else's."""

    def __init__(self):
        super().__init__()
        self.meanwhile = 0
        self.version = 100

    def answer(self, method, path, body):
        if method == "PATCH":
            assert path.endswith("/status")
            path = path.removesuffix("/status")
            assert set(body) == {"metadata", "status"}
            found = self.objects.get(path, {})
            if self.meanwhile:
                self.meanwhile -= 1
                self.touch(path)
            if found and body["metadata"]["resourceVersion"] != found["metadata"]["resourceVersion"]:
                self.log.append((method, path))
                return 409, {}
        return super().answer(method, path, body)

    def touch(self, path):
        self.version += 1
        self.objects[path]["metadata"]["resourceVersion"] = str(self.version)


def collector_stops(curve, rule):
    """Return whether Katib's collector stops a trial: it looks once, at report number start_step, at the best so far.

    Source: updateStopRules of file-metricscollector/main.go, which counts `start_step` down to 0 and on below it.
    """
    left, best = rule.start_step, None
    for value in curve:
        if rule.comparison == messages.LESS:
            best = value if best is None or value > best else best
        else:
            best = value if best is None or value < best else best
        left -= 1
        if left != 0:
            continue
        if best < float(rule.value) if rule.comparison == messages.LESS else best > float(rule.value):
            return True
    return False
