"""The code that a vendor's call counts with: gRPC sees a refusal in the vendor's words as an answer, metrics do not."""

from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import orjson
import pytest
from google.api.httpbody_pb2 import HttpBody

from headgate_server.access import admin
from headgate_server.core.model import RateLimit, Scope
from headgate_server.ingest.committer import Committer
from headgate_server.process.metrics import Metrics
from headgate_server.receivers import Reply
from headgate_server.receivers.scrip import Scrip
from tests.support.calls import Caller
from tests.support.inprocess import Service, serving
from tests.support.vendors import VENDORS

RECEIVE = "/headgate.v1.CompatService/Receive"
SCRIP, FOLLOW = VENDORS["scrip"], VENDORS["vibefollow"]
SINGLE = "/compat/scrip/v1/events"


class Counted:
    """A server whose counts since the last request a test can read."""

    def __init__(self, service: Service, metrics: Metrics):
        self.service = service
        self._metrics = metrics
        self._before: Counter[str] = Counter()

    async def ask(self, caller: Caller, path: str, body: Any, method: str = "POST") -> tuple[int, Any, list[str]]:
        """Call as the bridge does: return the HTTP status, the body, and the codes that were counted."""
        sent = (
            ("x-envoy-original-path", path),
            ("x-headgate-path", path),
            ("x-headgate-method", method),
            ("x-headgate-bridge", "1"),
        )
        request = HttpBody(data=body if isinstance(body, bytes) else orjson.dumps(body))
        ask = caller._channel.unary_unary(RECEIVE, response_deserializer=HttpBody.FromString)
        call = ask(request.SerializeToString(), metadata=(*caller.metadata, *sent))
        answer = await call
        said = dict(await call.initial_metadata())
        return int(said["x-headgate-http-status"]), orjson.loads(answer.data), self._codes()

    def _codes(self) -> list[str]:
        samples = [sample for metric in self._metrics.registry.collect() for sample in metric.samples]
        now = Counter(
            {
                one.labels["code"]: int(one.value)
                for one in samples
                if one.name == "headgate_calls_total" and one.labels["method"] == RECEIVE
            }
        )
        new, self._before = now - self._before, now
        return sorted(new.elements())


@pytest.fixture
async def counted(sqlite_url: str) -> AsyncIterator[Counted]:
    metrics = Metrics()
    async with serving(sqlite_url, metrics=metrics) as service:
        yield Counted(service, metrics)


async def test_calls_count_as_what_became_of_them(counted: Counted) -> None:
    event, other = SCRIP.event(0), SCRIP.event(0) | {"event_data": {"n": 1}}
    async with counted.service.caller() as caller:
        for path, body, method, status, code in (
            (SCRIP.batch, {"events": [event]}, "POST", 200, "OK"),
            (SINGLE, event, "POST", 200, "OK"),
            (SINGLE, other, "POST", 409, "ALREADY_EXISTS"),
            (SINGLE, {}, "POST", 400, "INVALID_ARGUMENT"),
            (SCRIP.batch, b"{", "POST", 400, "INVALID_ARGUMENT"),
            (SCRIP.batch + "/none", {}, "POST", 404, "NOT_FOUND"),
            (SINGLE + "/none", b"", "GET", 404, "NOT_FOUND"),
            (FOLLOW.batch, {"events": [{}]}, "POST", 422, "INVALID_ARGUMENT"),
            (FOLLOW.batch, {"events": 5}, "POST", 422, "INVALID_ARGUMENT"),
        ):
            answered, _, codes = await counted.ask(caller, path, body, method)
            assert (answered, codes) == (status, [code]), (path, body)


async def test_refusals_count_as_such(counted: Counted) -> None:
    service, batch = counted.service, {"events": SCRIP.events(1)}
    async with Caller(service.port, "hg_" + "x" * 43) as stranger, service.caller(Scope.EVENTS_READ) as reader:
        assert (await counted.ask(stranger, SCRIP.batch, batch))[::2] == (401, ["UNAUTHENTICATED"])
        assert (await counted.ask(reader, SCRIP.batch, batch))[::2] == (403, ["PERMISSION_DENIED"])
    async with service.caller() as caller:
        await admin.set_limits(
            service.store.directory, service.store.limits, "acme", ..., {"scrip": RateLimit(1, 3_600_000_000, 1)}
        )
        assert (await counted.ask(caller, SCRIP.batch, batch))[::2] == (200, ["OK"])
        assert (await counted.ask(caller, SCRIP.batch, batch))[::2] == (429, ["RESOURCE_EXHAUSTED"])
        await admin.set_limits(service.store.directory, service.store.limits, "acme", 1, {"scrip": None})
        other = SCRIP.event(1)
        assert (await counted.ask(caller, SINGLE, other))[::2] == (429, ["RESOURCE_EXHAUSTED"])


async def test_a_bug_counts_as_one_and_is_answered_in_the_vendors_form(
    counted: Counted, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def bug(*_: object) -> None:
        raise RuntimeError("internal matters")

    async with counted.service.caller() as caller:
        with monkeypatch.context() as patched:
            patched.setattr(Committer, "submit", bug)
            status, body, codes = await counted.ask(caller, SCRIP.batch, {"events": SCRIP.events(1)})
            assert (status, codes, body["code"]) == (500, ["INTERNAL"], "internal_error")
            assert "internal matters" not in body["message"]
            # A bug in the wording of refusals is reported in our words.
            patched.setattr(Scrip, "refusal", lambda *_: Reply(400, object()))
            with pytest.raises(Exception, match="has the details under the request id"):
                await counted.ask(caller, SCRIP.batch, {"events": SCRIP.events(1)})
            assert counted._codes() == ["INTERNAL"]
        assert (await counted.ask(caller, SCRIP.batch, {"events": SCRIP.events(1)}))[::2] == (200, ["OK"])
