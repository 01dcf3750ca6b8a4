"""SIGTERM while clients keep sending: every stored event's answer gets through Envoy."""

import asyncio
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from http.client import HTTPConnection
from pathlib import Path

import grpc
import httpx
import pytest

from headgate.v1.ledger_service_pb2 import GetHeadRequest
from tests.support import database
from tests.support.edge import Edge, failure, statuses
from tests.support.up import Up
from tests.support.waiting import held, until_true

CONNECTIONS = 300
APART = 0.002
"""Seconds from one request to the next: they continue well past the moment at which Envoy was once ended."""


class Connection:
    """One HTTP/1.1 connection that Envoy has accepted and that has no request in progress."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, key: str):
        self._reader = reader
        self._writer = writer
        self._key = key

    async def send(self, idempotency_key: str) -> bool:
        """Send one event, and return whether its answer says that it is stored."""
        body = b'{"type": "t", "idempotency_key": "%s"}' % idempotency_key.encode()
        try:
            self._writer.write(
                b"POST /v1/events HTTP/1.1\r\nhost: h\r\nx-api-key: %s\r\ncontent-type: application/json\r\n"
                b"connection: close\r\ncontent-length: %d\r\n\r\n%s" % (self._key.encode(), len(body), body)
            )
            answer = await asyncio.wait_for(self._reader.read(), 30)
        except ConnectionError:
            return False
        finally:
            self._writer.close()
        return answer.startswith(b"HTTP/1.1 200 ") and b'"accepted"' in answer


async def _connected(up: Up) -> Connection:
    host, _, port = up.rest.partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"GET /healthz HTTP/1.1\r\nhost: h\r\n\r\n")
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].split()[0]))
    return Connection(reader, writer, up.key)


async def _stop_under_load(up: Up, seed: str) -> set[str]:
    """Send SIGTERM, and one event after the other on connections that were made before; return the answers."""
    connections = [await _connected(up) for _ in range(CONNECTIONS)]
    sent = {}
    for number, connection in enumerate(connections):
        name = f"{seed}-{number}"
        sent[name] = asyncio.create_task(connection.send(name))
        if number == CONNECTIONS // 10:
            up.signal(signal.SIGTERM)
        await asyncio.sleep(APART)
    await asyncio.gather(*sent.values())
    return {name for name, answer in sent.items() if answer.result()}


@pytest.mark.parametrize("seed", ["a", "b", "c"])
def test_what_is_stored_while_it_stops_is_answered(tmp_path: Path, seed: str) -> None:
    url = f"sqlite:///{tmp_path}/headgate.db"
    with Up("--store", url, "--log-level", "warning", folder=tmp_path) as up:
        answered = asyncio.run(_stop_under_load(up, seed))
        assert up.wait() == 0
    stored = {key for (key,) in asyncio.run(database.execute(url, "SELECT key FROM events WHERE key IS NOT NULL"))}
    assert len(stored) > CONNECTIONS // 10
    assert stored == answered


def _head(connection: HTTPConnection, key: str) -> httpx.Response:
    """Read the ledger's head on a connection that may exist already."""
    connection.request("GET", "/v1/ledger/head", headers={"x-api-key": key})
    answer = connection.getresponse()
    return httpx.Response(answer.status, headers=answer.getheaders(), content=answer.read())


def test_what_comes_last_is_refused_in_the_usual_shape(postgres_url: str, tmp_path: Path) -> None:
    """Half of its grace after SIGTERM, Envoy refuses new requests while it waits for those in progress."""
    with (
        Up("--store", postgres_url, "--shutdown-grace", "12", folder=tmp_path) as up,
        closing(Edge(up, postgres_url, up.key)) as slow,
        ExitStack() as stack,
        ThreadPoolExecutor() as pool,
    ):
        others = [stack.enter_context(closing(HTTPConnection(up.rest, timeout=30))) for _ in range(CONNECTIONS)]
        assert {_head(each, up.key).status_code for each in others} == {200}
        slow.ledger.GetHead(GetHeadRequest(), metadata=slow.metadata)
        ((workspace,),) = asyncio.run(database.execute(postgres_url, "SELECT min(id) FROM workspaces"))
        with held(database.locked(postgres_url, workspace)):
            batch = pool.submit(slow.batch, {"type": "t"})
            until_true(lambda: database.lock_waiters(postgres_url))
            up.signal(signal.SIGTERM)
            refused = until_true(lambda: (answer := _head(others.pop(), up.key)).status_code != 200 and answer)
            assert failure(refused) == (503, 14, "UPSTREAM_UNAVAILABLE")
            with pytest.raises(grpc.RpcError) as caught:
                slow.ledger.GetHead(GetHeadRequest(), metadata=slow.metadata)
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert statuses(batch.result(30)) == ["accepted"]
        assert up.wait() == 0
