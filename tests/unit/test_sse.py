"""Server-sent events: the form that a browser's EventSource reads, and the header that asks for them."""

import asyncio

import pytest
from google.protobuf.message import Message
from hypothesis import given
from hypothesis import strategies as st

from headgate.v1.event_pb2 import StoredEvent
from headgate.v1.event_service_pb2 import CaughtUp, Heartbeat, SubscribeResponse
from headgate.v1.ingest_service_pb2 import EventResult
from headgate_server.rpc.pipeline import sse
from headgate_server.rpc.pipeline.printer import print_json
from tests.support.sse import parse


@pytest.mark.parametrize(
    ("accept", "wanted"),
    [
        (None, False),
        ("", False),
        ("*/*", False),
        ("application/json", False),
        ("application/x-ndjson", False),
        ("text/*", False),
        ("text/event-streams", False),
        ("text/event-stream", True),
        ("Text/Event-Stream", True),
        ("text/event-stream;charset=utf-8", True),
        ("application/json, text/event-stream ; q=0.5", True),
        ("text/event-stream;q=0", False),
        ("text/event-stream; q=0.000", False),
        (",;,text/event-stream", True),
    ],
)
def test_accept_headers(accept: str | None, wanted: bool) -> None:
    assert sse.is_wanted(accept) is wanted


def test_a_frame() -> None:
    assert sse.frame(b"{}") == b"data: {}\n\n"
    assert sse.frame(b"{}", "heartbeat", "7") == b"id: 7\nevent: heartbeat\ndata: {}\n\n"
    assert sse.frame(b"a\nb\r\nc") == b"data: a\ndata: b\ndata: c\n\n"
    assert sse.frame(b"") == b"data: \n\n"


@given(st.lists(st.text(st.characters(exclude_characters="\r\n\0", codec="utf-8")), min_size=1))
def test_any_data_is_read_back(lines: list[str]) -> None:
    (read,) = parse(sse.frame("\n".join(lines).encode(), "x", "1"))
    assert read == ("1", "x", "\n".join(lines))


def _frames(known: str | None, *responses: Message) -> list[bytes]:
    async def printed(message: Message) -> bytes:
        return print_json(message)

    async def made() -> list[bytes]:
        frames = sse.Frames(known, printed)
        return [await frames(response) for response in responses]

    return asyncio.run(made())


def test_a_choice_is_an_event_with_a_name_and_an_id() -> None:
    one, caught_up, beat = _frames(
        None,
        SubscribeResponse(event=StoredEvent(sequence=4, type="t")),
        SubscribeResponse(caught_up=CaughtUp(sequence=4)),
        SubscribeResponse(heartbeat=Heartbeat(sequence=6, head=9)),
    )
    assert one.startswith(b'id: 4\ndata: {"id":"","sequence":4,')  # unnamed: it reaches `onmessage`
    assert caught_up == b'event: caught_up\ndata: {"sequence":4}\n\n'  # the reader has this id already
    assert beat == b'id: 6\nevent: heartbeat\ndata: {"sequence":6,"head":9}\n\n'


def test_an_id_that_the_reader_has_is_not_sent_again() -> None:
    caught_up = SubscribeResponse(caught_up=CaughtUp(sequence=0))
    assert _frames("0", caught_up) == [b'event: caught_up\ndata: {"sequence":0}\n\n']
    assert _frames(None, caught_up) == [b'id: 0\nevent: caught_up\ndata: {"sequence":0}\n\n']
    assert _frames("3", caught_up) == [b'id: 0\nevent: caught_up\ndata: {"sequence":0}\n\n']


def test_any_other_response_is_data_as_a_whole() -> None:
    assert _frames(None, EventResult(index=1, status="a")) == [b'data: {"index":1,"status":"a"}\n\n']
