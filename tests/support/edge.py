"""A workspace as clients of the bridge see it: over HTTP and, on the same port, over gRPC."""

import asyncio
import http.client
import socket
from collections import deque
from collections.abc import Iterable
from typing import Any, Self

import grpc
import httpx
import orjson

from headgate.v1 import event_service_pb2_grpc, ingest_service_pb2_grpc, ledger_service_pb2_grpc
from headgate_server.core.model import Scope
from tests.support.service import make_key
from tests.support.up import Up

JSON = {"content-type": "application/json"}


class Edge:
    """Clients with one key. `http` has a connection of its own and no retries; `url` is the URL of the store."""

    def __init__(self, up: Up, url: str, key: str):
        self.up = up
        self.url = url
        self.key = key
        self._answers: deque[str] = deque(maxlen=20)
        self.http = httpx.Client(
            base_url=f"http://{up.rest}",
            headers={"x-api-key": key},
            timeout=30,
            event_hooks={"response": [self._note]},
        )
        self.channel = grpc.insecure_channel(up.rest)
        self.metadata = (("authorization", f"Bearer {key}"),)
        self.ingest = ingest_service_pb2_grpc.IngestServiceStub(self.channel)
        self.events = event_service_pb2_grpc.EventServiceStub(self.channel)
        self.ledger = ledger_service_pb2_grpc.LedgerServiceStub(self.channel)

    @classmethod
    def of(cls, up: Up, url: str, workspace: str, scopes: Iterable[Scope] = (Scope.ADMIN,)) -> Self:
        """Make a key, and clients with it."""
        return cls(up, url, asyncio.run(make_key(url, workspace, scopes)))

    def close(self) -> None:
        """Close the connections. Print the last answers, which pytest shows if the test has failed."""
        print(*self._answers, sep="\n")
        self.http.close()
        self.channel.close()

    def _note(self, response: httpx.Response) -> None:
        request, its_id = response.request, response.headers.get("x-request-id")
        self._answers.append(f"{response.status_code} {request.method} {request.url.raw_path.decode()} {its_id}")

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        """Send a value as JSON, or bytes as they are; `_` in a header's name becomes `-`."""
        content = body if isinstance(body, bytes) else orjson.dumps(body)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.http.post(path, content=content, headers=JSON | named)

    def batch(self, *events: Any, path: str = "/v1/events/batch", **options: Any) -> dict[str, Any]:
        """Send a valid batch, and return the answer."""
        response = self.post(path, {"events": events, **options})
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def stored(self) -> int:
        """Return the number of events in the workspace."""
        response = self.http.get("/v1/ledger/head")
        assert response.status_code == 200, response.text
        return int(response.json()["sequence"])


def failure(response: httpx.Response) -> tuple[int, int, str]:
    """Return (HTTP status, code, reason) of a refusal by Envoy or the server: all have one form, and an id."""
    body = response.json()
    assert body.keys() == {"code", "message", "details"}, body
    assert response.headers["content-type"] == "application/json"
    assert response.headers["x-request-id"]
    assert body["message"]
    assert "grpc-status" not in response.headers
    assert not any(name.startswith("x-headgate-") for name in response.headers)
    info = body["details"][0]
    assert info["@type"] == "type.googleapis.com/google.rpc.ErrorInfo"
    assert info["domain"] == "headgate"
    return response.status_code, body["code"], info["reason"]


def statuses(answer: dict[str, Any]) -> list[str]:
    """Return the status at each position."""
    return [result["status"] for result in answer["results"]]


def raw(edge: Edge, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """Send bytes over a new connection; return status, headers and body."""
    host, _, port = edge.up.rest.partition(":")
    with socket.create_connection((host, int(port)), 10) as connection:
        connection.sendall(request)
        response = http.client.HTTPResponse(connection)
        response.begin()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, response.read()
