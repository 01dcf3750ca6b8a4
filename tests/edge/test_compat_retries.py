"""`Idempotency-Key` as FloKit and VibeFollow document it: a client that retries never stores twice, and always gets the
same answer.
"""

import asyncio
import random
import socket
import uuid
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import httpx
import orjson
import pytest

from headgate_server.access import admin
from tests.edge.conftest import MakeEdge
from tests.support.edge import JSON, Edge
from tests.support.vendors import VENDORS, Vendor

REPLAYED = "idempotency-replayed"

with_keys = pytest.mark.parametrize("vendor", [VENDORS["flokit"], VENDORS["vibefollow"]], ids=lambda each: each.name)
on_each_store = pytest.mark.parametrize("store", ["sqlite", "postgres"])


def _single(vendor: Vendor) -> str:
    return {"flokit": "/compat/flokit/v1/events", "vibefollow": "/compat/vibefollow/api/v1/events"}[vendor.name]


def _assert_same(first: httpx.Response, again: httpx.Response) -> None:
    assert REPLAYED not in first.headers
    assert again.headers[REPLAYED] == "true"
    assert (again.status_code, again.content) == (first.status_code, first.content)
    assert again.headers["content-type"] == first.headers["content-type"]


@with_keys
def test_a_replay(any_edge: Edge, vendor: Vendor) -> None:
    body = {"events": vendor.events(3)}
    first, again, third = (any_edge.post(vendor.batch, body, idempotency_key="k") for _ in range(3))
    assert first.status_code == vendor.success
    _assert_same(first, again)
    _assert_same(first, third)
    assert any_edge.stored() == 3
    assert any_edge.post(vendor.batch, body, idempotency_key="l").status_code == vendor.success
    assert any_edge.post(vendor.batch, body).status_code == vendor.success
    assert any_edge.stored() == 9


@with_keys
def test_what_was_rejected_is_replayed_too(any_edge: Edge, vendor: Vendor) -> None:
    """FloKit's `errors`, and VibeFollow's 422: a retry gets the answer of the first request, also if it is an error."""
    good, bad = vendor.event(0), {vendor.text: 5}
    first, again = (any_edge.post(vendor.batch, {"events": [good, bad]}, idempotency_key="k") for _ in range(2))
    assert first.status_code == {"flokit": 200, "vibefollow": 422}[vendor.name]
    _assert_same(first, again)
    first, again = (any_edge.post(vendor.batch, {"events": [bad]}, idempotency_key="l") for _ in range(2))
    _assert_same(first, again)
    first, again = (any_edge.post(_single(vendor), bad, idempotency_key="m") for _ in range(2))
    assert first.status_code == {"flokit": 400, "vibefollow": 422}[vendor.name]
    _assert_same(first, again)
    assert any_edge.stored() == {"flokit": 1, "vibefollow": 0}[vendor.name]


@with_keys
def test_another_body_under_the_same_key(any_edge: Edge, vendor: Vendor) -> None:
    first = any_edge.post(vendor.batch, {"events": vendor.events(1)}, idempotency_key="k")
    others: list[Any] = [{"events": vendor.events(2)}, {"events": vendor.events(1), "a": 1}, {"events": [{}]}]
    for other in others:
        refusal = vendor.refusal(any_edge.post(vendor.batch, other, idempotency_key="k"))
        assert refusal[:2] == (422, "idempotency_key_reuse")
    assert any_edge.stored() == 1
    _assert_same(first, any_edge.post(vendor.batch, {"events": vendor.events(1)}, idempotency_key="k"))


@with_keys
def test_a_request_that_was_refused_does_not_burn_its_key(edge: Edge, vendor: Vendor) -> None:
    for body, headers in ((b"{", {}), (b'{"events":5}', {}), (b"x", {"content_encoding": "gzip"})):
        assert edge.post(vendor.batch, body, idempotency_key="k", **headers).status_code in (400, 422)
    wrong = {"x-api-key": "hg_wrong", "idempotency-key": "k"}
    assert edge.http.post(vendor.batch, content=b"{}", headers=wrong).status_code == 401
    response = edge.post(vendor.batch, {"events": vendor.events(2)}, idempotency_key="k")
    assert (response.status_code, response.headers.get(REPLAYED)) == (vendor.success, None)


@with_keys
def test_a_key_belongs_to_its_endpoint_and_workspace(make_edge: MakeEdge, vendor: Vendor) -> None:
    edge, neighbour = make_edge(), make_edge()
    other = VENDORS["vibefollow" if vendor.name == "flokit" else "flokit"]
    sent = [
        edge.post(vendor.batch, {"events": vendor.events(1)}, idempotency_key="k"),
        edge.post(_single(vendor), vendor.event(1), idempotency_key="k"),
        edge.post(other.batch, {"events": other.events(1)}, idempotency_key="k"),
        edge.post("/v1/events/batch", {"events": [{"type": "t"}]}, idempotency_key="k"),
        neighbour.post(vendor.batch, {"events": vendor.events(2)}, idempotency_key="k"),
    ]
    assert all(response.is_success and REPLAYED not in response.headers for response in sent)
    assert (edge.stored(), neighbour.stored()) == (4, 2)


@with_keys
@pytest.mark.parametrize(("key", "status"), [("", 400), ("x" * 255, 0), ("x" * 256, 400), ("ключ", 0)])
def test_the_length_of_a_key(edge: Edge, vendor: Vendor, key: str, status: int) -> None:
    headers = {b"idempotency-key": key.encode()}
    body = orjson.dumps({"events": vendor.events(1)})
    first, again = (edge.http.post(vendor.batch, content=body, headers=headers) for _ in range(2))
    assert first.status_code == (status or vendor.success), first.text
    if status:
        assert vendor.refusal(first)[:2] == (status, vendor.codes[status])
    else:
        _assert_same(first, again)
    assert edge.stored() == (0 if status else 1)


@pytest.mark.parametrize("name", ["roboflow", "immutable", "scrip"])
def test_vendors_without_the_header_do_not_hear_it(edge: Edge, name: str) -> None:
    vendor = VENDORS[name]
    sent = [edge.post(vendor.batch, {"events": [vendor.event(n)]}, idempotency_key="k") for n in range(2)]
    assert [response.status_code for response in sent] == [vendor.success] * 2
    assert not any(REPLAYED in response.headers for response in sent)
    assert edge.stored() == 2


class Request:
    """One request of three events with its own key, sent until it is answered."""

    def __init__(self, edge: Edge, vendor: Vendor, number: int):
        self._edge = edge
        self._path = vendor.batch
        self._body = orjson.dumps({"events": [vendor.event(3 * number + n) for n in range(3)]})
        self._headers = JSON | {"x-api-key": edge.key, "idempotency-key": f"request-{number}"}
        self.answers: list[httpx.Response] = []

    async def give_up(self, client: httpx.AsyncClient, patience: float) -> None:
        """Send it and wait for so many seconds. The server may read it or not, answer or not."""
        with suppress(httpx.TransportError):
            self.answers.append(await self._send(client, patience))

    async def cut(self, patience: float) -> None:
        """Send it whole and close the connection without reading."""
        host, _, port = self._edge.up.rest.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = {"host": host, "content-length": str(len(self._body))} | self._headers
        lines = "".join(f"{name}: {value}\r\n" for name, value in head.items())
        writer.write(f"POST {self._path} HTTP/1.1\r\n{lines}\r\n".encode() + self._body)
        await writer.drain()
        await asyncio.wait([asyncio.ensure_future(reader.read(1))], timeout=patience)
        # A reset and not an orderly close, as after a crash of the client.
        linger = bytes([1, 0, 0, 0, 0, 0, 0, 0])
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    async def insist(self, client: httpx.AsyncClient) -> None:
        """Send it until it is answered."""
        for _ in range(100):
            response = await self._send(client, 30)
            if response.status_code not in (429, 503):
                self.answers.append(response)
                return
        raise AssertionError(f"never answered: {response.text}")

    async def _send(self, client: httpx.AsyncClient, patience: float) -> httpx.Response:
        return await client.post(self._path, content=self._body, headers=self._headers, timeout=patience)


@on_each_store
@with_keys
async def test_clients_that_give_up_and_retry_under_load(make_edge: MakeEdge, store: str, vendor: Vendor) -> None:
    """Some wait too briefly, some lose their connection, all send twice at once: no event is stored twice, answers
    agree.
    """
    edge = await _unlimited_edge(make_edge, store, vendor)
    chance = random.Random(7)
    requests = [Request(edge, vendor, number) for number in range(60)]
    limits = httpx.Limits(max_connections=32)
    async with httpx.AsyncClient(base_url=f"http://{edge.up.rest}", limits=limits) as client:

        async def live(request: Request) -> None:
            for _ in range(chance.randrange(1, 4)):
                await chance.choice(_ways(request, client, chance))()
            await asyncio.gather(request.insist(client), request.insist(client))

        await asyncio.gather(*map(live, requests))
        await asyncio.gather(*(request.insist(client) for request in requests))

    for request in requests:
        assert {(answer.status_code, answer.content) for answer in request.answers} == {
            (vendor.success, request.answers[0].content)
        }
        assert sum(map(_is_first, request.answers)) <= 1
        assert request.answers[-1].headers[REPLAYED] == "true"
    # For some, the first answer never arrived: this is the case under test.
    assert any(not any(map(_is_first, request.answers)) for request in requests)
    assert edge.stored() == 3 * len(requests)
    assert edge.http.get("/v1/ledger/verify").json()["valid"] is True
    if vendor.name == "flokit":
        ids = [event_id for request in requests for event_id in request.answers[0].json()["event_ids"]]
        assert len(set(ids)) == 3 * len(requests)
        users = _users(edge)
        assert len(users) == len(set(users)) == 3 * len(requests)


def _is_first(answer: httpx.Response) -> bool:
    return REPLAYED not in answer.headers


def _ways(request: Request, client: httpx.AsyncClient, chance: random.Random) -> list[Callable[[], Awaitable[None]]]:
    patience = chance.uniform(0.0005, 0.03)
    return [lambda: request.give_up(client, patience), lambda: request.cut(patience)]


async def _unlimited_edge(make_edge: MakeEdge, store: str, vendor: Vendor) -> Edge:
    """Make a workspace without a rate limit, so that only retries are tested."""
    name = f"w{uuid.uuid4().hex}"
    edge = await asyncio.to_thread(make_edge, workspace=name, store=store)
    async with admin.opened(edge.url) as opened:
        await admin.set_limits(opened.directory, opened.limits, name, ..., {vendor.name: None})
    return edge


def _users(edge: Edge) -> list[Any]:
    events = edge.http.get("/v1/events?page_size=1000").json()["events"]
    return [event["data"]["user_id"] for event in events]
