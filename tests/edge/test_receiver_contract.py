"""The HTTP that a receiver may rely on, through a real Envoy. A receiver of these tests reports what it got, and
answers as the test says.
"""

import json
from collections.abc import AsyncIterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import httpx
import pytest

from headgate_bridge.config import BridgeConfig
from headgate_bridge.envoy import Envoy
from headgate_server.app import methods
from headgate_server.core import validate
from headgate_server.core.errors import HeadgateError
from headgate_server.core.model import Draft, Outcome, Problem
from headgate_server.receivers import Endpoint, Find, HttpRequest, Intake, Page, Receiver, Reply, Search, Take
from headgate_server.receivers.common import decode_event, read_list
from headgate_server.receivers.registry import RECEIVERS
from headgate_server.rpc.pipeline.trust import PUBLIC
from tests.support.inprocess import Service, serving

JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00"
KEYED = {"idempotency-key": "k"}


class Mirror(Receiver):
    """Takes a list at the top of a body, and gives the answer that the query requests."""

    name = "mirror"

    def routes(self) -> Mapping[tuple[str, str], Endpoint]:
        """Return the endpoints by method and path."""
        return {
            ("POST", "/list"): Take(read=_read, reply=_reply, request_key=True),
            ("GET", "/seen"): Find(read=lambda _: Search(1), reply=_seen),
            ("PUT", "/seen"): Find(read=lambda _: Search(1), reply=_seen),
        }

    def refusal(self, status: int, error: HeadgateError) -> Reply:
        """Return an error as plain text."""
        return Reply(status, error.message.encode(), content_type="text/plain")


def _read(request: HttpRequest) -> Intake:
    return Intake([decode_event(item, _draft) for item in read_list(request, 10, name="")])


def _draft(event: Any) -> Draft | Problem:
    return validate.seal("mirror", "seen", "", "", None, event, None)


def _reply(request: HttpRequest, intake: Intake, outcomes: Sequence[Outcome]) -> Reply:
    if "status" in request.query:
        return _asked(request)
    return Reply(200, [outcome.status for outcome in outcomes])


def _asked(request: HttpRequest) -> Reply:
    """Return the answer that the query requests."""
    body = bytes.fromhex(request.query["body"])
    kind = request.query.get("type", "application/octet-stream")
    return Reply(int(request.query["status"]), body, (("location", "/elsewhere"),), content_type=kind)


def _seen(request: HttpRequest, page: Page) -> Reply:
    if "status" in request.query:
        return _asked(request)
    seen = {"headers": dict(request.headers), "type": request.content_type, "body": request.body.hex()}
    return Reply(200, seen)


@pytest.fixture
async def mirror(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[httpx.AsyncClient]:
    """Run a server with the receiver, behind Envoy, and return a client of the receiver."""
    monkeypatch.setattr(methods, "RECEIVERS", MappingProxyType({**RECEIVERS, "mirror": Mirror()}))
    async with serving(sqlite_url) as service:
        config = BridgeConfig(http_port=0, upstreams=(("127.0.0.1", service.port),), body_limit=1 << 20, marker=PUBLIC)
        async with Envoy(config) as envoy, await _client(service, envoy) as client:
            yield client


async def _client(service: Service, envoy: Envoy) -> httpx.AsyncClient:
    base = f"http://127.0.0.1:{envoy.port}/compat/mirror"
    return httpx.AsyncClient(base_url=base, headers={"x-api-key": await service.key()}, timeout=30)


async def test_headers_and_content_type_come_in(mirror: httpx.AsyncClient) -> None:
    sent = {"content-type": "application/cloudevents+json; charset=UTF-8", "X-Signature": "t=1,v1=abc", "Ce-Id": "7"}
    got = (await mirror.put("/seen", content=JPEG, headers=sent)).json()
    assert got["type"] == sent["content-type"]
    assert got["body"] == JPEG.hex()
    assert (got["headers"]["x-signature"], got["headers"]["ce-id"]) == ("t=1,v1=abc", "7")
    # No part of the key, and no header that only the bridge sends to the server.
    assert not {"x-api-key", "authorization", "te"} & got["headers"].keys()
    assert not [name for name in got["headers"] if name.startswith(("x-headgate-", "x-envoy-", "grpc-", ":"))]
    assert (await mirror.get("/seen")).json()["type"] == ""


@pytest.mark.parametrize("status", [200, 201, 206, 299, 300, 404, 410, 418, 422, 451, 499, 500, 502, 507, 599])
async def test_any_status_goes_out_with_a_raw_body(mirror: httpx.AsyncClient, status: int) -> None:
    for method in ("GET", "PUT"):
        answer = await mirror.request(
            method, "/seen", params={"status": status, "body": JPEG.hex(), "type": "image/jpeg"}
        )
        assert (answer.status_code, answer.content) == (status, JPEG)
        assert answer.headers["content-type"] == "image/jpeg"
        assert answer.headers["location"] == "/elsewhere"


@pytest.mark.parametrize("status", [200, 202, 204, 302, 303, 304, 307, 308, 404])
async def test_no_body_is_none(mirror: httpx.AsyncClient, status: int) -> None:
    for _ in range(2):  # the connection can be used again
        answer = await mirror.get("/seen", params={"status": status, "body": ""})
        assert (answer.status_code, answer.content) == (status, b"")
        assert answer.headers["location"] == "/elsewhere"
        assert answer.headers["x-request-id"]


@pytest.mark.parametrize("status", [-1, 0, 99, 100, 101, 199, 600, 1000])
async def test_what_is_no_status_is_a_bug_and_never_a_success(mirror: httpx.AsyncClient, status: int) -> None:
    answer = await mirror.get("/seen", params={"status": status, "body": ""})
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "text/plain"
    assert "has the details under the request id" in answer.text
    # The fault shows before the commit: nothing is stored.
    refused = await mirror.post("/list", content=b'[{"a": 1}]', params={"status": status, "body": ""})
    assert refused.status_code == 500
    head = await mirror.get(f"http://{mirror.base_url.netloc.decode()}/v1/ledger/head")
    assert head.json()["sequence"] == 0


async def test_a_list_at_the_top_of_a_body(mirror: httpx.AsyncClient) -> None:
    poisoned = (
        b'[{"a": 1}, 5, {"a": 1, "a": 2}, {"b": "\\ud800"}, ' + b'{"a":' * 2_000 + b"1" + b"}" * 2_000 + b', {"n": 1}]'
    )
    answer = await mirror.post("/list", content=poisoned)
    assert answer.json() == ["accepted", "rejected", "rejected", "rejected", "rejected", "accepted"]
    for body in (b"", b"[", b"{}", b"[1,]", b"null", b"[] []", b"\xff"):
        refused = await mirror.post("/list", content=body)
        assert refused.status_code == 400, body
        assert refused.headers["content-type"] == "text/plain"
    assert "at least one" in (await mirror.post("/list", content=b"[]")).text
    assert "maximum of 10" in (await mirror.post("/list", content=json.dumps([{}] * 11))).text


async def test_a_replay_is_the_answer_as_it_was(mirror: httpx.AsyncClient) -> None:
    asked = {"status": 202, "body": JPEG.hex(), "type": "image/jpeg"}
    for replayed in (None, "true"):
        answer = await mirror.post("/list", content=b'[{"a": 1}]', params=asked, headers=KEYED)
        assert (answer.status_code, answer.content, answer.headers["content-type"]) == (202, JPEG, "image/jpeg")
        assert answer.headers["location"] == "/elsewhere"
        assert answer.headers.get("idempotency-replayed") == replayed
