"""A webhook's request, the meaning of each answer, and faults of receivers."""

import asyncio
import json
import ssl
import time

import orjson
import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st
from standardwebhooks import Webhook as Verifier

from headgate_server.delivery import signing
from headgate_server.delivery.attempt import DETAIL_CHARACTERS, Verdict
from headgate_server.delivery.networks import Networks, network_of
from headgate_server.delivery.payload import Format
from headgate_server.delivery.url import Url
from headgate_server.delivery.webhook import Webhook, WebhookConfig
from tests.delivery.conftest import SECRET, Make, Names, render
from tests.support.connections import watched
from tests.support.delivering import stored, verified_in_javascript
from tests.support.receivers import Answer, answers, floods, hangs, receiver, says, trickles
from tests.support.waiting import until

EVENT = stored(7, {"total": 12.50, "text": "größer"}, type="order.placed", source="shop", subject="o-1")
OK = answers(200, b"thanks")


async def test_a_request_is_a_standard_webhook(webhook: Make) -> None:
    async with receiver(OK) as there:
        attempt = await webhook(there.port, headers=[("Authorization", "Bearer s3cret")]).send([EVENT], 1)
    [request] = there.requests
    assert (attempt.verdict, attempt.status, attempt.detail) == (Verdict.DELIVERED, 200, "thanks")
    assert attempt.retry_after is None
    assert 0 < attempt.seconds < 5
    assert request.line == "POST /in?a=b HTTP/1.1"
    assert request.headers["host"] == f"127.0.0.1:{there.port}"
    assert request.headers["authorization"] == "Bearer s3cret"
    assert request.headers["content-type"] == "application/json"
    assert Verifier(SECRET).verify(request.body, request.headers) == {
        "type": "order.placed",
        "timestamp": "2026-11-30T06:00:00.123463Z",
        "data": json.loads(render(EVENT)),
    }
    assert verified_in_javascript(SECRET, request.headers, request.body)["type"] == "order.placed"


async def test_several_events_are_one_request(webhook: Make) -> None:
    events = [stored(number, {"n": number}) for number in (1, 2, 3)]
    async with receiver(OK) as there:
        sender = webhook(there.port, several=True)
        await sender.send(events, 1)
        await sender.send(events, 2)
        await sender.send(events[:1], 1)
    first, again, alone = there.requests
    assert [one["data"]["sequence"] for one in orjson.loads(first.body)["events"]] == [1, 2, 3]
    assert first.headers["webhook-id"] == again.headers["webhook-id"]
    assert first.body == again.body
    assert len(orjson.loads(alone.body)["events"]) == 1
    assert alone.headers["webhook-id"] == signing.message_id(events[:1])


async def test_cloudevents_are_structured_or_a_batch(webhook: Make) -> None:
    async with receiver(OK) as there:
        await webhook(there.port, format=Format.CLOUDEVENTS).send([EVENT], 1)
        await webhook(there.port, format=Format.CLOUDEVENTS, several=True).send([EVENT, stored(8)], 1)
    one, batch = there.requests
    assert one.headers["content-type"] == "application/cloudevents+json"
    assert orjson.loads(one.body)["data"] == {"total": 12.50, "text": "größer"}
    assert batch.headers["content-type"] == "application/cloudevents-batch+json"
    assert [cloud["sequence"] for cloud in orjson.loads(batch.body)] == [f"{7:020}", f"{8:020}"]
    for request in there.requests:
        Verifier(SECRET).verify(request.body, request.headers)


async def test_each_attempt_is_signed_at_its_own_time_with_the_keys_of_that_time(webhook: Make) -> None:
    keys = [signing.new_shared_key(), signing.new_shared_key()]
    turns = iter([keys[:1], keys, keys[1:]])
    async with receiver(OK) as there:
        sender = webhook(there.port, keys=lambda: [signing.read_key(key) for key in next(turns)])
        for attempt in (1, 2, 3):
            await sender.send([EVENT], attempt)
    first, both, last = there.requests
    assert len({request.headers["webhook-id"] for request in there.requests}) == 1
    for request, key in ((first, keys[0]), (both, keys[0]), (both, keys[1]), (last, keys[1])):
        Verifier(key).verify(request.body, request.headers)
        assert abs(int(request.headers["webhook-timestamp"]) - time.time()) < 60


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_2xx_delivers(webhook: Make, status: int) -> None:
    async with receiver(says(f"HTTP/1.1 {status} x\r\nConnection: close\r\n\r\n".encode(), then_close=True)) as there:
        assert (await webhook(there.port).send([EVENT], 1)).verdict is Verdict.DELIVERED


@pytest.mark.parametrize("status", [300, 304, 400, 401, 404, 409, 418, 429, 500, 503, 599])
async def test_everything_else_fails(webhook: Make, status: int) -> None:
    async with receiver(answers(status)) as there:
        attempt = await webhook(there.port).send([EVENT], 1)
    assert (attempt.verdict, attempt.status, attempt.retry_after) == (Verdict.FAILED, status, None)


async def test_410_is_gone(webhook: Make) -> None:
    async with receiver(answers(410, b"closed")) as there:
        attempt = await webhook(there.port).send([EVENT], 1)
    assert (attempt.verdict, attempt.status, attempt.detail) == (Verdict.GONE, 410, "closed")


@pytest.mark.parametrize(("text", "seconds"), [("120", 120), ("999999", 86_400), ("later", None)])
async def test_a_failure_may_ask_for_time(webhook: Make, text: str, seconds: float | None) -> None:
    async with receiver(answers(503, retry_after=text)) as there:
        assert (await webhook(there.port).send([EVENT], 1)).retry_after == seconds
    async with receiver(answers(200, retry_after=text)) as there:
        assert (await webhook(there.port).send([EVENT], 1)).retry_after is None


async def test_a_redirect_is_a_failure_and_is_not_followed(webhook: Make) -> None:
    async with receiver(OK) as victim:
        goal = f"http://127.0.0.1:{victim.port}/"
        for status in (301, 302, 303, 307, 308):
            async with receiver(answers(status, location=goal)) as there:
                attempt = await webhook(there.port).send([EVENT], 1)
            assert (attempt.verdict, attempt.status) == (Verdict.FAILED, status)
            assert attempt.detail == f"redirects are not followed: {goal}"
    assert victim.connections == 0


@pytest.mark.parametrize("variable", ["http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"])
async def test_a_proxy_of_the_environment_is_not_used(
    webhook: Make, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    async with receiver(OK) as proxy, receiver(OK) as there:
        monkeypatch.setenv(variable, f"http://127.0.0.1:{proxy.port}")
        assert (await webhook(there.port).send([EVENT], 1)).verdict is Verdict.DELIVERED
    assert (proxy.connections, len(there.requests)) == (0, 1)


@pytest.mark.parametrize(
    "answer",
    [hangs, trickles(b""), trickles(b"HTTP/1.1 200 OK\r\n", b"x"), trickles(b"", b"HTTP/1.1 100 Continue\r\n\r\n")],
    ids=["hangs", "trickles", "trickles-a-header", "goes-on-for-ever"],
)
async def test_an_attempt_without_an_answer_ends_at_its_time(webhook: Make, answer: Answer) -> None:
    async with receiver(answer) as there:
        sender = webhook(there.port, timeout=0.3, connections=1)
        for number in (1, 2):
            attempt = await sender.send([EVENT], number)
            assert (attempt.verdict, attempt.status) == (Verdict.FAILED, None)
            assert 0.2 < attempt.seconds < 2
            assert attempt.detail == "no answer within 0.3 s"
        await until(lambda: _is(there.open == 0))
    # The only allowed connection is free again.
    assert there.connections == 2


async def test_a_body_that_never_ends_does_not_undo_the_delivery(
    webhook: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headgate_server.delivery.webhook._ANSWER_SECONDS", 0.2)
    async with receiver(trickles(b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\nthanks ")) as there:
        attempt = await webhook(there.port, timeout=0.1).send([EVENT], 1)
        await until(lambda: _is(there.open == 0))
    assert (attempt.verdict, attempt.status) == (Verdict.DELIVERED, 200)
    assert attempt.detail.startswith("thanks x")
    assert attempt.seconds < 2


async def test_a_large_answer_is_not_read_to_its_end(webhook: Make) -> None:
    async with receiver(floods(10_000_000)) as there:
        attempt = await webhook(there.port).send([EVENT], 1)
        await until(lambda: _is(there.open == 0))
    assert (attempt.verdict, attempt.status) == (Verdict.FAILED, 500)
    assert attempt.detail == "x" * DETAIL_CHARACTERS


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b"", "Server disconnected without sending a response."),
        (b"HTTP/1.1 200", "Server disconnected without sending a response."),
        (b"\x00\xff\x16\x03", "illegal"),
        (b"220 smtp.example ESMTP\r\n\r\n", "illegal status line"),
        (b"HTTP/1.1 200 OK\r\n" + b"A: " + b"x" * 200_000, "too long"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "Content-Length"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "Transfer-Encoding"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", ""),
    ],
)
async def test_an_invalid_answer_is_a_failure(webhook: Make, raw: bytes, words: str) -> None:
    async with receiver(says(raw, then_close=True)) as there:
        attempt = await webhook(there.port, timeout=5).send([EVENT], 1)
    assert attempt.verdict is Verdict.FAILED
    assert words in attempt.detail


@pytest.mark.parametrize(
    "raw",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nold",
    ],
)
async def test_a_status_counts_also_if_its_body_is_broken(webhook: Make, raw: bytes) -> None:
    async with receiver(says(raw, then_close=True)) as there:
        assert (await webhook(there.port).send([EVENT], 1)).verdict is Verdict.DELIVERED


@given(raw=st.binary(max_size=200) | st.binary(max_size=100).map(b"HTTP/1.1 200 OK\r\n".__add__))
def test_no_answer_of_a_receiver_raises(raw: bytes) -> None:
    async def attempt() -> None:
        async with receiver(says(raw, then_close=True)) as there:
            made = Webhook(
                WebhookConfig(url=Url("http", "127.0.0.1", there.port, "/"), keys=list, timeout=5),
                render=render,
                networks=Networks([network_of("127.0.0.1")]),
                resolver=Names({}),
            )
            await made.send([EVENT], 1)
            await made.close()

    asyncio.run(attempt())


async def test_a_closed_port_is_a_failure_with_a_reason(webhook: Make) -> None:
    async with receiver(OK) as there:
        pass
    attempt = await webhook(there.port).send([EVENT], 1)
    assert (attempt.verdict, attempt.status) == (Verdict.FAILED, None)
    assert "onnect" in attempt.detail


async def test_an_unknown_name_is_a_failure_with_a_reason(webhook: Make) -> None:
    attempt = await webhook(80, host="crm.invalid").send([EVENT], 1)
    assert attempt.detail.startswith("crm.invalid has no address: ")


async def test_connections_are_kept_and_their_number_is_bounded(webhook: Make) -> None:
    gate = asyncio.Event()

    async def waits(request: object, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await OK(request, writer)  # type: ignore[arg-type]

    async with receiver(waits) as there:
        sender = webhook(there.port, connections=3)
        sending = [asyncio.create_task(sender.send([EVENT], 1)) for _ in range(10)]
        await until(lambda: _is(len(there.requests) == 3))
        gate.set()
        assert {(await task).verdict for task in sending} == {Verdict.DELIVERED}
        await sender.send([EVENT], 1)
    assert (len(there.requests), there.connections, there.most_open) == (11, 3, 3)


async def test_idle_connections_are_closed(webhook: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headgate_server.delivery.webhook._KEEP_ALIVE_SECONDS", 0.1)
    async with receiver(OK) as there:
        sender = webhook(there.port)
        await asyncio.gather(*(sender.send([EVENT], 1) for _ in range(4)))
        assert there.open == 4
        await until(lambda: _is(there.open == 0))
        assert (await sender.send([EVENT], 1)).verdict is Verdict.DELIVERED
        assert there.open == 1


async def test_a_request_that_ends_after_the_close_leaves_no_connection(webhook: Make) -> None:
    gate = asyncio.Event()

    async def waits(request: object, writer: asyncio.StreamWriter) -> None:
        await gate.wait()
        await OK(request, writer)  # type: ignore[arg-type]

    async with receiver(waits) as there:
        sender = webhook(there.port)
        sending = asyncio.create_task(sender.send([EVENT], 1))
        await there.arrived.wait()
        await sender.close()
        gate.set()
        assert (await sending).verdict is Verdict.DELIVERED
        # Sooner than an idle connection is closed.
        await until(lambda: _is(there.open == 0), seconds=3)


async def test_a_connection_that_the_receiver_closed_is_replaced(webhook: Make) -> None:
    async with receiver(says(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", then_close=True)) as there:
        sender = webhook(there.port)
        for _ in range(3):
            assert (await sender.send([EVENT], 1)).verdict is Verdict.DELIVERED
            await until(lambda: _is(there.open == 0))
    assert there.connections == 3


async def test_a_cancelled_attempt_frees_its_connection(webhook: Make) -> None:
    async with receiver(hangs) as there:
        sender = webhook(there.port, connections=1)
        sending = asyncio.create_task(sender.send([EVENT], 1))
        await there.arrived.wait()
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        await until(lambda: _is(there.open == 0))
        there.answer = OK
        assert (await sender.send([EVENT], 2)).verdict is Verdict.DELIVERED


async def test_tls_is_checked_against_the_name_of_the_url(webhook: Make) -> None:
    authority = trustme.CA()
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context()
    authority.issue_cert("crm.example").configure_cert(server)
    authority.configure_trust(client)
    seen: list[str | None] = []
    server.sni_callback = lambda _object, name, _context: seen.append(name)
    names = Names({"crm.example": ["127.0.0.1"], "other.example": ["127.0.0.1"]})
    async with receiver(OK, tls=server) as there:
        good = await webhook(there.port, scheme="https", host="crm.example", names=names, tls=client).send([EVENT], 1)
        other = await webhook(there.port, scheme="https", host="other.example", names=names, tls=client).send(
            [EVENT], 1
        )
        unknown = await webhook(there.port, scheme="https", host="crm.example", names=names).send([EVENT], 1)
    assert good.verdict is Verdict.DELIVERED
    assert there.requests[0].headers["host"] == f"crm.example:{there.port}"
    assert seen == ["crm.example", "other.example", "crm.example"]
    for refused in (other, unknown):
        assert refused.verdict is Verdict.FAILED
        assert "certificate verify failed" in refused.detail
    assert len(there.requests) == 1


async def test_a_tls_handshake_that_hangs_ends_with_the_attempt(webhook: Make) -> None:
    async with receiver(hangs) as there:
        sender = webhook(there.port, scheme="https", timeout=0.3, connections=1)
        for _ in range(2):
            assert (await sender.send([EVENT], 1)).detail == "no answer within 0.3 s"
        await until(lambda: _is(there.open == 0))


async def test_an_address_that_does_not_answer_is_followed_by_the_next(webhook: Make) -> None:
    names = Names({"crm.example": ["127.0.0.3 127.0.0.1"]})
    async with receiver(OK) as there:
        sender = webhook(there.port, host="crm.example", names=names, allow=["127.0.0.0/8"])
        with watched() as connections:
            assert (await sender.send([EVENT], 1)).verdict is Verdict.DELIVERED
    assert connections.made == [("127.0.0.3", there.port), ("127.0.0.1", there.port)]


async def _is(state: bool) -> bool:
    return state
