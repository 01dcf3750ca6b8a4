"""`GET /v1/events:subscribe` through Envoy: server-sent events and lines, cut off and resumed, and how streams end."""

import json
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import grpc
import httpx
import pytest

from headgate.v1.event_service_pb2 import SubscribeRequest
from headgate_server.core.model import Scope
from tests.edge.conftest import MakeEdge
from tests.support.edge import Edge, failure
from tests.support.processes import children
from tests.support.sse import ServerSentEvent, events
from tests.support.up import Up, headgate
from tests.support.waiting import until_true

PATH = "/v1/events:subscribe"
SSE = {"accept": "text/event-stream"}


@contextmanager
def _subscribed(edge: Edge, query: str = "", **headers: str) -> Iterator[httpx.Response]:
    """Open a stream on a connection of its own."""
    with (
        httpx.Client(base_url=f"http://{edge.up.rest}", headers={"x-api-key": edge.key}, timeout=30) as client,
        client.stream("GET", PATH + query, headers=headers) as response,
    ):
        assert response.status_code == 200, response.read()
        yield response


def _sse(response: httpx.Response) -> Iterator[ServerSentEvent]:
    assert response.headers["content-type"] == "text/event-stream"
    assert response.headers["cache-control"] == "no-store"
    return events(line.rstrip("\r") for line in _lines(response))


def _lines(response: httpx.Response) -> Iterator[str]:
    """Yield lines as they come: httpx would hold the last one back until the next byte."""
    rest = ""
    for chunk in response.iter_text():
        *lines, rest = (rest + chunk).split("\n")
        yield from lines


def test_server_sent_events_come_one_by_one(any_edge: Edge) -> None:
    any_edge.batch({"type": "a", "data": {"n": 12345678901234567890}})
    with _subscribed(any_edge, "?after_sequence=0", **SSE) as response:
        stream = _sse(response)
        first = next(stream)
        assert (first.id, first.name) == ("1", "message")
        assert json.loads(first.data) == any_edge.http.get("/v1/events").json()["events"][0]
        assert next(stream) == (None, "caught_up", '{"sequence":1}')
        for sequence in range(2, 6):
            any_edge.batch({"type": "a"})
            assert next(stream).id == str(sequence)


def test_without_a_start_only_what_comes(edge: Edge) -> None:
    edge.batch({"type": "a"}, {"type": "a"})
    with _subscribed(edge, **SSE) as response:
        stream = _sse(response)
        assert next(stream) == ("2", "caught_up", '{"sequence":2}')
        edge.batch({"type": "a"})
        assert next(stream).id == "3"


@pytest.mark.parametrize("accept", ["*/*", "application/json", "application/x-ndjson"])
def test_lines_of_json(edge: Edge, accept: str) -> None:
    edge.batch({"type": "order.paid"}, {"type": "other"})
    with _subscribed(edge, "?after_sequence=0&type=order.*", accept=accept) as response:
        assert response.headers["content-type"] == "application/x-ndjson"
        stream = map(json.loads, _lines(response))
        assert next(stream)["event"]["sequence"] == 1
        assert next(stream) == {"caught_up": {"sequence": 2}}
        edge.batch({"type": "other"}, {"type": "order.sent"})
        assert next(stream)["event"]["type"] == "order.sent"


def test_starts_in_a_query(edge: Edge) -> None:
    edge.batch(*({"type": "a"} for _ in range(3)))
    stored = edge.http.get("/v1/events").json()["events"]
    moment = stored[1]["created_at"].replace("Z", "+00:00")
    for query in (f"?after_id={stored[0]['id']}", f"?from={moment}", "?after_sequence=1"):
        with _subscribed(edge, query, **SSE) as response:
            assert next(_sse(response)).id == "2"


def test_grpc_passes_through(edge: Edge) -> None:
    edge.batch({"type": "a"})
    stream = edge.events.Subscribe(SubscribeRequest(after_sequence=0), metadata=edge.metadata)
    assert next(stream).event.sequence == 1
    assert next(stream).caught_up.sequence == 1
    edge.batch({"type": "a"})
    assert next(stream).event.sequence == 2
    stream.cancel()


EACH = 400
WRITERS = 3


def test_cut_off_and_resumed_under_load_nothing_is_missing_and_nothing_comes_twice(any_edge: Edge) -> None:
    """A reader loses its connection again and again, in the middle of what is sent, while others write."""

    def write(_: int) -> None:
        with closing(Edge(any_edge.up, any_edge.url, any_edge.key)) as writer:
            for _ in range(EACH // 4):
                writer.batch(*({"type": "a"} for _ in range(4)))

    seen: list[int] = []
    last = ""
    cuts = 0
    with ThreadPoolExecutor(WRITERS) as pool:
        writing = [pool.submit(write, number) for number in range(WRITERS)]
        while len(seen) < EACH * WRITERS:
            headers = SSE | ({"last-event-id": last} if last else {})
            with _subscribed(any_edge, "?after_sequence=0", **headers) as response:
                for count, one in enumerate(_sse(response)):
                    # What came whole is kept; the rest of the connection is thrown away.
                    last = last if one.id is None else one.id
                    if one.name == "message":
                        seen.append(json.loads(one.data)["sequence"])
                        assert str(seen[-1]) == one.id
                    if count >= 7 + cuts % 50 or len(seen) == EACH * WRITERS:
                        break
            cuts += 1
        for each in writing:
            each.result()
    assert seen == list(range(1, EACH * WRITERS + 1))
    assert cuts > 20


@pytest.mark.parametrize(
    ("query", "headers", "status", "code", "reason"),
    [
        ("?after_sequence=-1", {}, 400, 3, "NEGATIVE"),
        ("?after_sequence=abc", {}, 400, 3, "INVALID_REQUEST"),
        ("?after_sequence=1.5", {}, 400, 3, "INVALID_REQUEST"),
        ("?after_sequence=99999999999999999999", {}, 400, 3, "INVALID_REQUEST"),
        ("?after_sequence=7", {}, 400, 3, "SEQUENCE_PAST_HEAD"),
        ("?after_id=abc", {}, 400, 3, "INVALID_ID"),
        ("?after_id=01a1fc55-87c1-728f-9c4c-d55d5623739d", {}, 404, 5, "EVENT_NOT_FOUND"),
        ("?after_id=01a1fc55-87c1-728f-9c4c-d55d5623739d&after_sequence=0", {}, 400, 3, "SEVERAL_STARTS"),
        ("?from=yesterday", {}, 400, 3, "INVALID_TIMESTAMP"),
        ("?colour=red", {}, 400, 3, "INVALID_REQUEST"),
        ("?type=%00", {}, 400, 3, "INVALID_CHARACTER"),
        ("", {"last-event-id": "abc"}, 400, 3, "INVALID_CURSOR"),
        ("", {"last-event-id": "7"}, 400, 3, "SEQUENCE_PAST_HEAD"),
        ("", {"x-api-key": ""}, 401, 16, "MISSING_API_KEY"),
        ("", {"x-api-key": "hg_" + "x" * 43}, 401, 16, "INVALID_API_KEY"),
    ],
)
@pytest.mark.parametrize("accept", ["text/event-stream", "*/*"])
def test_requests_that_are_refused(
    edge: Edge, query: str, headers: dict[str, str], status: int, code: int, reason: str, accept: str
) -> None:
    response = edge.http.get(PATH + query, headers={"accept": accept} | headers)
    assert failure(response) == (status, code, reason)


def test_who_may_not_and_what_is_not_a_stream(edge: Edge, make_edge: MakeEdge) -> None:
    assert failure(make_edge(Scope.EVENTS_WRITE).http.get(PATH)) == (403, 7, "MISSING_SCOPE")
    head = edge.http.head(PATH)
    assert (head.status_code, head.content) == (400, b"")
    for method in ("POST", "DELETE", "PUT"):
        assert failure(edge.http.request(method, PATH))[0] in (404, 405)
    for path in (f"{PATH}/", "/v1/events:subscribed", "/v1/events/x:subscribe"):
        assert failure(edge.http.get(path))[0] in (400, 404)


@contextmanager
def _up(folder: Path, *arguments: str) -> Iterator[Edge]:
    url = f"sqlite:///{folder}/headgate.db"
    with Up("--store", url, *arguments, folder=folder) as up, closing(Edge(up, url, up.key)) as edge:
        yield edge


def test_heartbeats_and_room_for_streams(tmp_path: Path) -> None:
    with _up(tmp_path, "--stream-heartbeat", "0.2", "--concurrent-streams", "1") as edge:
        edge.batch({"type": "a"})
        with _subscribed(edge, **SSE) as response:
            stream = _sse(response)
            assert next(stream).name == "caught_up"
            assert next(stream) == (None, "heartbeat", '{"sequence":1,"head":1}')
            refused = edge.http.get(PATH)
            assert failure(refused) == (429, 8, "OVERLOADED")
            assert refused.headers["retry-after"]
            edge.batch({"type": "a"})  # calls are not kept out
        # A reader who leaves makes room.
        until_true(lambda: _opens(edge))


def _opens(edge: Edge) -> bool:
    with (
        httpx.Client(base_url=f"http://{edge.up.rest}", headers={"x-api-key": edge.key}) as client,
        client.stream("GET", PATH) as response,
    ):
        return response.status_code == 200


def test_a_revoked_key_ends_a_silent_stream_within_five_seconds(any_edge: Edge) -> None:
    listed = headgate("keys", "list", "--store", any_edge.url).stdout.splitlines()[1:]
    (key_id,) = [line.split()[0] for line in listed if any_edge.key.startswith(line.split()[1].rstrip("…"))]
    with _subscribed(any_edge, **SSE) as response, _subscribed(any_edge) as lines:
        stream, read = _sse(response), _lines(lines)
        assert next(stream).name == "caught_up"
        next(read)
        assert headgate("keys", "revoke", "--store", any_edge.url, key_id).returncode == 0
        began = time.monotonic()
        last = next(stream)
        assert (last.name, json.loads(last.data)["details"][0]["reason"]) == ("error", "INVALID_API_KEY")
        assert json.loads(next(read))["error"]["code"] == 16
        assert list(stream) == []
        assert time.monotonic() - began < 5


def test_at_the_end_of_the_service_streams_end_at_once_with_an_error(tmp_path: Path) -> None:
    with _up(tmp_path, "--shutdown-grace", "60") as edge:
        edge.batch({"type": "a"})
        stub = edge.events.Subscribe(SubscribeRequest(), metadata=edge.metadata)
        assert next(stub).caught_up.sequence == 1
        with _subscribed(edge, **SSE) as response:
            stream = _sse(response)
            assert next(stream).id == "1"
            began = time.monotonic()
            edge.up.signal(signal.SIGTERM)
            last = next(stream)
            assert (last.name, json.loads(last.data)["details"][0]["reason"]) == ("error", "SHUTTING_DOWN")
            assert list(stream) == []
        with pytest.raises(grpc.RpcError) as caught:
            next(stub)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        assert edge.up.wait() == 0
        assert time.monotonic() - began < 15


def test_a_stream_of_more_than_an_answer_may_have(edge: Edge) -> None:
    """Envoy bounds what it holds of an answer (64 MiB), not what passes."""
    text = "x" * 1_000_000
    for _ in range(10):
        edge.batch(*({"type": "a", "data": {"x": text}} for _ in range(7)))
    with _subscribed(edge, "?after_sequence=0", **SSE) as response:
        stream = _sse(response)
        assert [next(stream).id for _ in range(70)] == [str(number) for number in range(1, 71)]


SLOW = 60


def _memory(up: Up) -> int:
    """Return the resident bytes of Envoy and of the servers."""
    pages = (int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in children(up.pid))
    return sum(pages) * os.sysconf("SC_PAGE_SIZE")


def test_readers_who_do_not_read_cost_bounded_memory_and_delay_nobody(tmp_path: Path) -> None:
    with _up(tmp_path) as edge:
        text = "x" * 50_000
        for _ in range(10):
            edge.batch(*({"type": "a", "data": {"x": text}} for _ in range(100)))
        before = _memory(edge.up)
        host, _, port = edge.up.rest.partition(":")
        readers = [socket.create_connection((host, int(port))) for _ in range(SLOW)]
        try:
            for reader in readers:
                reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                request = f"GET {PATH}?after_sequence=0 HTTP/1.1\r\nhost: h\r\nx-api-key: {edge.key}\r\n\r\n"
                reader.sendall(request.encode())
            assert all(reader.recv(12) == b"HTTP/1.1 200" for reader in readers)
            # Meanwhile others read everything, and write.
            with _subscribed(edge, "?after_sequence=0", **SSE) as response:
                stream = _sse(response)
                assert [next(stream).id for _ in range(1_000)] == [str(number) for number in range(1, 1_001)]
                edge.batch({"type": "b"})
                assert next(stream).name in ("caught_up", "message")
            # 50 MB are stored; each of them has taken a fraction of that.
            assert (_memory(edge.up) - before) / SLOW < 3_000_000
        finally:
            for reader in readers:
                reader.close()
