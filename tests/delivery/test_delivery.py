"""Destinations from end to end: a server, a store, and real receivers on loopback."""

import asyncio
from collections.abc import AsyncIterator, Callable
from ipaddress import ip_network
from typing import Any

import orjson
import pytest
from standardwebhooks import Webhook as Verifier

from headgate.v1.event_service_pb2 import GetEventRequest, ListEventsRequest
from headgate_server.core.audit import NOBODY
from headgate_server.delivery.channel import Channel
from headgate_server.delivery.config import DeliveryConfig
from headgate_server.ingest.compat import Compat
from headgate_server.receivers import HttpRequest, Reply
from headgate_server.receivers.scrip import Scrip
from tests.support.calls import Caller, event, refused
from tests.support.destinations import Operator
from tests.support.drafts import append, draft
from tests.support.ingesting import admit
from tests.support.inprocess import Service, serving
from tests.support.receivers import Answer, Received, Receiver, answers, hangs, receiver
from tests.support.waiting import GUARD, until

LOOPBACK = DeliveryConfig(allowed=(ip_network("127.0.0.0/8"),))


@pytest.fixture
async def service(store_url: str) -> AsyncIterator[Service]:
    """Run a server whose webhooks may reach loopback."""
    async with serving(store_url, delivery=LOOPBACK) as running:
        yield running


@pytest.fixture
async def caller(service: Service) -> AsyncIterator[Caller]:
    """Return a client with every scope."""
    async with service.caller() as client:
        yield client


@pytest.fixture
def operator(caller: Caller) -> Operator:
    return Operator.of(caller)


def hook(one: Receiver, name: str = "crm", **more: Any) -> dict[str, Any]:
    """Return the body of a destination that starts at the beginning."""
    webhook = {"url": f"http://127.0.0.1:{one.port}/hook", **more.pop("webhook", {})}
    return {"name": name, "webhook": webhook, "start": "beginning", **more}


def sequences(one: Receiver) -> list[int]:
    """Return the sequences of the received events, in the order of their arrival."""
    numbers = []
    for request in one.requests:
        body = orjson.loads(request.body)
        numbers += [each["data"]["sequence"] for each in body.get("events", [body])]
    return numbers


async def arrived(one: Receiver, *expected: int) -> None:
    """Wait until each of these events was received at least once."""

    async def state() -> bool:
        return set(expected) <= set(sequences(one))

    await until(state)


async def shows(operator: Operator, destination_id: str, **expected: Any) -> dict[str, Any]:
    """Wait until a destination shows these values, and return it."""

    async def state() -> dict[str, Any]:
        found: dict[str, Any] = await operator.get(destination_id)
        return found if expected.items() <= found.items() else {}

    return await until(state)


def fails_for(which: Callable[[int], bool], status: int = 500) -> Answer:
    """Return an answer that fails for the events with these sequences."""
    bad, good = answers(status, b"no"), answers(200)

    async def answer(request: Received, writer: asyncio.StreamWriter) -> None:
        sequence = orjson.loads(request.body)["data"]["sequence"]
        await (bad if which(sequence) else good)(request, writer)

    return answer


async def test_earlier_and_later_events_are_delivered_and_signed(caller: Caller, operator: Operator) -> None:
    async with receiver(answers(204)) as one:
        await caller.batch(event("a", {"n": 1}), event("b", type="ping"))
        body = hook(one, webhook={"headers": {"x-token": "hunter2"}}, filter={"types": ["order.*"]})
        made = await operator.create(body)
        await arrived(one, 1)
        await caller.batch(event("c"), event("d", type="ping"), event("e", type="order.x"))
        await arrived(one, 1, 3, 5)
        found = await shows(operator, made["id"], cursor=5, lag_events=0)
        assert (found["delivered"], found["set_aside"], found["failed_attempts"]) == (3, 0, 0)
    assert sorted(sequences(one)) == [1, 3, 5]
    first = next(request for request in one.requests if b'"sequence":1,' in request.body)
    assert first.headers["x-token"] == "hunter2"
    Verifier(made["webhook"]["secret"]).verify(first.body, first.headers)
    stored = orjson.loads(first.body)
    assert stored["data"]["data"] == {"n": 1}
    assert first.headers["webhook-id"] == stored["data"]["id"]


async def test_a_cursor_moves_past_events_that_do_not_match(caller: Caller, operator: Operator) -> None:
    async with receiver(answers()) as one:
        made = await operator.create(hook(one, filter={"types": ["nothing"]}))
        await caller.batch(*[event() for _ in range(20)])
        await shows(operator, made["id"], cursor=20, lag_events=0)
        assert one.requests == []


async def test_parallel_sets_failed_events_aside_and_continues(caller: Caller, operator: Operator) -> None:
    async with receiver(fails_for(lambda sequence: sequence in (2, 5))) as one:
        made = await operator.create(hook(one))
        await caller.batch(*[event() for _ in range(8)])
        found = await shows(operator, made["id"], cursor=8, set_aside=2)
        assert found["delivered"] == 6
        assert found["last_error"] == "500: no"
        failures = (await operator.call("ListFailures", id=made["id"]))["failures"]
        assert [(each["sequence"], each["state"], each["status"]) for each in failures] == [
            (2, "retrying", 500),
            (5, "retrying", 500),
        ]
        one.answer = answers(200)
        await operator.call("RetryFailure", id=made["id"], sequence=2)
        await shows(operator, made["id"], set_aside=1, delivered=7, cursor=8)
        await operator.call("SkipFailure", id=made["id"], sequence=5)
        found = await shows(operator, made["id"], set_aside=0)
        assert (found["delivered"], found["cursor"]) == (7, 8)
        await operator.replay(made["id"], {"set_aside": True})
        (skipped,) = (await operator.call("ListFailures", id=made["id"]))["failures"]
        assert skipped["state"] == "skipped"


async def test_ordered_stops_at_the_first_failure(caller: Caller, operator: Operator) -> None:
    async with receiver(fails_for(lambda sequence: sequence == 3)) as one:
        made = await operator.create(hook(one, ordering="ordered"))
        await caller.batch(*[event() for _ in range(6)])
        found = await shows(operator, made["id"], cursor=2, set_aside=1)
        assert (found["lag_events"], found["delivered"]) == (4, 2)
        assert sequences(one) == [1, 2, 3]
        one.answer = answers(200)
        await operator.call("RetryFailure", id=made["id"], sequence=3)
        found = await shows(operator, made["id"], cursor=6, set_aside=0)
        assert sequences(one) == [1, 2, 3, 3, 4, 5, 6]
        ids = [request.headers["webhook-id"] for request in one.requests]
        assert ids[2] == ids[3]


async def test_ordered_continues_after_a_skipped_event(caller: Caller, operator: Operator) -> None:
    async with receiver(fails_for(lambda sequence: sequence == 2)) as one:
        made = await operator.create(hook(one, ordering="ordered"))
        await caller.batch(*[event() for _ in range(4)])
        await shows(operator, made["id"], cursor=1, set_aside=1)
        await operator.call("SkipFailure", id=made["id"], sequence=2)
        await shows(operator, made["id"], cursor=4, set_aside=0)
        assert sequences(one) == [1, 2, 3, 4]


async def test_requests_with_several_events_are_in_order(caller: Caller, operator: Operator) -> None:
    async with receiver(answers()) as one:
        await caller.batch(*[event() for _ in range(25)])
        made = await operator.create(hook(one, ordering="ordered", webhook={"max_events": 10}))
        await shows(operator, made["id"], cursor=25)
        assert sequences(one) == list(range(1, 26))
        assert len(one.requests) == 3


async def test_a_replay_repeats_and_moves_no_cursor(caller: Caller, operator: Operator) -> None:
    async with receiver(answers()) as one:
        made = await operator.create(hook(one, ordering="ordered"))
        await caller.batch(*[event() for _ in range(5)])
        await shows(operator, made["id"], cursor=5)
        replayed = await operator.replay(made["id"], {"after_sequence": 3})
        assert replayed["cursor"] == 5

        async def is_over() -> bool:
            return "replay" not in await operator.get(made["id"])

        await until(is_over)
        assert sequences(one) == [1, 2, 3, 4, 5, 4, 5]
        await caller.batch(event())
        await shows(operator, made["id"], cursor=6, delivered=8)


async def test_410_disables_and_loses_no_event(caller: Caller, operator: Operator) -> None:
    async with receiver(answers(410)) as one:
        made = await operator.create(hook(one, ordering="ordered"))
        await caller.batch(event(), event())
        found = await shows(operator, made["id"], state="disabled", cursor=0)
        assert found["state_reason"] == "The receiver answered 410 Gone."
        one.answer = answers(200)
        await operator.call("ResumeDestination", id=made["id"])
        await shows(operator, made["id"], state="active", cursor=2, set_aside=0)


async def test_a_paused_destination_loses_no_event(caller: Caller, operator: Operator) -> None:
    async with receiver(answers()) as one:
        made = await operator.create(hook(one))
        await caller.batch(event())
        await arrived(one, 1)
        await shows(operator, made["id"], cursor=1)
        await operator.call("PauseDestination", id=made["id"])
        await caller.batch(event())
        assert (await operator.get(made["id"]))["lag_events"] == 1
        await operator.call("ResumeDestination", id=made["id"])
        await arrived(one, 2)
        await operator.call("DeleteDestination", id=made["id"])


async def test_retry_after_delays_the_destination(caller: Caller, operator: Operator) -> None:
    async with receiver(answers(503, retry_after="3600")) as one:
        made = await operator.create(hook(one, ordering="ordered"))
        await caller.batch(event(), event())
        found = await shows(operator, made["id"], set_aside=1)
        (failure,) = (await operator.call("ListFailures", id=made["id"]))["failures"]
        assert failure["next_attempt_at"] > failure["last_attempt_at"][:13] + ":00:00Z"
        assert found["next_attempt_at"] == failure["next_attempt_at"]
        assert len(one.requests) == 1


async def test_a_dead_endpoint_does_not_delay_others(caller: Caller, operator: Operator) -> None:
    async with receiver(hangs) as dead, receiver(answers(500)) as broken, receiver(answers()) as good:
        await operator.create(hook(dead, "dead"))
        await operator.create(hook(broken, "broken"))
        made = await operator.create(hook(good, "good"))
        for _ in range(10):
            await caller.batch(*[event() for _ in range(10)])
        await shows(operator, made["id"], cursor=100, delivered=100)
        assert sorted(sequences(good)) == list(range(1, 101))


async def test_at_most_eight_requests_are_sent_at_once(caller: Caller, operator: Operator) -> None:
    """Each has a connection, so none waits for one while its timeout runs."""
    good, waiting, enough = answers(), 0, asyncio.Event()

    async def answer(request: Received, writer: asyncio.StreamWriter) -> None:
        nonlocal waiting
        waiting += 1
        if waiting == 8:
            asyncio.get_running_loop().call_later(0.1, enough.set)
        await enough.wait()
        await good(request, writer)

    async with receiver(answer) as one:
        await caller.batch(*[event() for _ in range(20)])
        made = await operator.create(hook(one))
        await shows(operator, made["id"], cursor=20, delivered=20)
        assert one.most_open == 8


async def test_a_blocked_network_is_a_visible_failure(service: Service, caller: Caller, operator: Operator) -> None:
    """The command line accepted its URL, because it does not have the server's setting."""
    from tests.support.destinations import made

    (workspace,) = [one.id for one in await service.store.directory.workspaces() if one.name == "acme"]
    one = await made(service.store, workspace, url="http://10.0.0.1:9/x")
    await caller.batch(event())
    found = await shows(operator, one.destination.id, set_aside=1, cursor=1)
    assert "blocked network" in found["last_error"]


async def test_after_a_rotation_both_secrets_sign(caller: Caller, operator: Operator) -> None:
    async with receiver(answers()) as one:
        made = await operator.create(hook(one))
        rotated = await operator.call("RotateSecret", id=made["id"])
        await caller.batch(event())
        await arrived(one, 1)
        (request,) = one.requests
        for shown in (made, rotated):
            Verifier(shown["webhook"]["secret"]).verify(request.body, request.headers)


async def test_a_changed_filter_applies_from_the_cursor_on(caller: Caller, operator: Operator) -> None:
    async with receiver(answers()) as one:
        made = await operator.create(hook(one, filter={"types": ["a"]}))
        await caller.batch(event(type="a"), event(type="b"))
        await shows(operator, made["id"], cursor=2)
        await operator.update(made["id"], {"filter": {"types": ["b"]}})
        await caller.batch(event(type="a"), event(type="b"))
        await shows(operator, made["id"], cursor=4)
        assert sorted(sequences(one)) == [1, 4]


async def test_a_stop_waits_for_a_request_and_the_next_server_continues(
    store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = asyncio.Event()
    good = answers()
    stop = Channel.stop

    def stopped(channel: Channel) -> None:
        stop(channel)
        slow.set()

    async def answer(request: Received, writer: asyncio.StreamWriter) -> None:
        await slow.wait()
        await good(request, writer)

    async with receiver(answer) as one:
        async with serving(store_url, delivery=LOOPBACK) as running, running.caller() as first:
            made = await Operator.of(first).create(hook(one, ordering="ordered"))
            await first.batch(event(), event())
            await asyncio.wait_for(one.arrived.wait(), GUARD)
            monkeypatch.setattr(Channel, "stop", stopped)
        assert sequences(one) == [1]
        async with serving(store_url, delivery=LOOPBACK) as running, running.caller() as second:
            await shows(Operator.of(second), made["id"], cursor=2)
        assert sequences(one) == [1, 2]


async def test_the_full_view_has_the_state_of_the_delivery(caller: Caller, operator: Operator) -> None:
    async def lives() -> list[str]:
        listed = await caller.events.ListEvents(ListEventsRequest(view="FULL"), metadata=caller.metadata)
        return [one.delivery for one in listed.events]

    results = (await caller.batch(*[event() for _ in range(3)], event(type="ping"))).results
    assert await lives() == ["none"] * 4
    async with receiver(fails_for(lambda sequence: sequence == 2)) as one:
        made = await operator.create(hook(one, filter={"types": ["order.*"]}))
        await shows(operator, made["id"], cursor=4, set_aside=1)
        assert await lives() == ["delivered", "pending", "delivered", "none"]
        await operator.call("SkipFailure", id=made["id"], sequence=2)
        assert await lives() == ["delivered", "failed", "delivered", "none"]
        got = await caller.events.GetEvent(GetEventRequest(id=results[1].id, view="FULL"), metadata=caller.metadata)
        assert got.event.delivery == "failed"
        plain = await caller.events.GetEvent(GetEventRequest(id=results[1].id), metadata=caller.metadata)
        assert plain.event.delivery == ""
        one.answer = answers(200)
        await operator.call("RetryFailure", id=made["id"], sequence=2)
        await shows(operator, made["id"], delivered=3)
        assert await lives() == ["delivered"] * 3 + ["none"]
    refusal = await refused(caller.events.ListEvents(ListEventsRequest(view="full"), metadata=caller.metadata))
    assert (refusal.reason, refusal.fields) == ("INVALID_FIELD", ["view"])


async def test_scrips_status_follows_the_delivery(service: Service, caller: Caller, operator: Operator) -> None:
    program = "550e8400-e29b-41d4-a716-446655440000"
    (workspace,) = [one for one in await service.store.directory.workspaces() if one.name == "acme"]
    store = service.store
    compat = Compat(store.ledgers, store.proof, store.deliveries, store.destinations, None)  # type: ignore[arg-type]

    async def seen(**query: str) -> list[tuple[int, str]]:
        """Return the number and the status of each event of a list."""
        request = HttpRequest("GET", "/v1/events", {"sort_dir": "asc", **query}, b"", 0)
        endpoint = Scrip().routes()["GET", "/v1/events"]
        exchange = await compat(Scrip(), endpoint, workspace, request, None, NOBODY, admit)
        assert isinstance(exchange.reply, Reply)
        body = orjson.loads(orjson.dumps(exchange.reply.body))
        return [(one["event_data"]["n"], one["status"]) for one in body["data"]]

    for number in (1, 2, 3):
        data = {
            "program_id": program, "idempotency_key": f"k{number}", "event_timestamp": "2024-01-15T10:30:00Z",
            "external_id": "u", "event_data": {"n": number},
        }  # fmt: skip
        await append(service.store, workspace.id, draft(data=data, receiver="scrip", source=program, subject="u"))
    assert await seen() == [(1, "COMPLETED"), (2, "COMPLETED"), (3, "COMPLETED")]
    async with receiver(fails_for(lambda sequence: sequence != 2)) as one:
        made = await operator.create(hook(one, filter={"receivers": ["scrip"]}))
        await shows(operator, made["id"], cursor=3, set_aside=2)
        await operator.call("SkipFailure", id=made["id"], sequence=3)
        assert await seen() == [(1, "PENDING"), (2, "COMPLETED"), (3, "FAILED")]
        assert await seen(status="PENDING") == [(1, "PENDING")]
        assert await seen(status="COMPLETED", limit="1") == [(2, "COMPLETED")]
        assert await seen(status="FAILED") == [(3, "FAILED")]
        assert await seen(status="PROCESSING") == []
