"""A span for each request to a destination, which its receiver can continue."""

from opentelemetry.trace import SpanKind, StatusCode

from headgate_server.delivery.attempt import Verdict
from headgate_server.delivery.channel import Channel
from headgate_server.delivery.journal import Journal
from headgate_server.process.metrics import Metrics
from headgate_server.store import Store
from tests.delivery.conftest import Make
from tests.support.delivering import stored
from tests.support.destinations import made
from tests.support.marks import on_sqlite
from tests.support.receivers import answers, receiver
from tests.support.spans import Traced


@on_sqlite
async def test_traceparent_goes_out_with_each_webhook(store: Store, webhook: Make) -> None:
    workspace = (await store.directory.create_workspace("acme")).id
    destination = (await made(store, workspace, "crm")).destination
    lease = await store.leases.take("deliver", "one", 60.0)
    assert lease is not None
    traced = Traced()
    async with receiver(answers(200, b"")) as there, receiver(answers(500, b"no")) as failing:
        sender = webhook(there.port)
        journal = Journal(store.deliveries, lease)
        channel = Channel(destination, sender, journal, Metrics(), retrying=0, tracing=traced.tracing)
        await channel.attempt([stored(7)], 1)
        bad = Channel(destination, webhook(failing.port), journal, Metrics(), retrying=0, tracing=traced.tracing)
        await bad.attempt([stored(7)], 2)
        own = ("Traceparent", "00-" + "a" * 32 + "-" + "b" * 16 + "-00")
        channel = Channel(
            destination, webhook(there.port, headers=[own]), journal, Metrics(), retrying=0, tracing=traced.tracing
        )
        await channel.attempt([stored(7)], 3)
        await sender.send([stored(7)], 4)
    sent = [request.headers.get("traceparent") for request in there.requests]
    sent[1:1] = [request.headers.get("traceparent") for request in failing.requests]
    first, second, third = traced.named("deliver webhook")
    expected = [
        f"00-{one.context.trace_id:032x}-{one.context.span_id:016x}-{one.context.trace_flags:02x}"
        for one in (first, second)
    ]
    assert sent == [*expected, own[1], None]
    assert first.context.trace_id != second.context.trace_id
    assert first.kind is SpanKind.CLIENT
    assert first.attributes == {
        "headgate.destination": destination.id,
        "headgate.sequence": 7,
        "headgate.events": 1,
        "headgate.attempt": 1,
        "headgate.result": Verdict.DELIVERED.value,
        "http.response.status_code": 200,
    }
    assert first.status.status_code is StatusCode.UNSET
    assert (second.status.status_code, second.attributes["http.response.status_code"]) == (StatusCode.ERROR, 500)
    assert third.attributes["headgate.attempt"] == 3
