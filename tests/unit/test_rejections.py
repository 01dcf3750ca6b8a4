"""The queue of refused events: the kept events, the left-out and counted events, and the cut of an event."""

from collections.abc import Sequence
from typing import Any

import pytest

from headgate_server.core import ledger
from headgate_server.core.model import Outcome, Problem, Status
from headgate_server.core.reasons import Reason
from headgate_server.core.rejections import MOST_BYTES, Encoding, Rejection, encoding_of, kept_of, storable
from headgate_server.core.settle import ABORTED, CONFLICT
from headgate_server.ingest.rejections import Origin, RejectionConfig, RejectionQueue
from headgate_server.process.metrics import Metrics

MISSING = Problem(Reason.MISSING_FIELD, "type", "The type field is required.")
REJECTED = Outcome(Status.REJECTED, problem=MISSING)
ACCEPTED = Outcome(Status.ACCEPTED)
NOW = 1_764_482_580_000_000


class Door:
    """A queue with a clock that the test sets."""

    def __init__(self, **config: Any):
        self.seconds = 0.0
        self.metrics = Metrics()
        config = {"most": 100, **config}
        self.queue = RejectionQueue(RejectionConfig(**config), self.metrics, lambda: NOW, lambda: self.seconds)

    def refuse(
        self, *outcomes: Outcome, workspace: int = 1, held: int = 10, encoding: Encoding = Encoding.JSON
    ) -> None:
        """Refuse a request of workspace `workspace`; an event's text is its position."""
        origin = Origin(workspace, "key_1", "r-1", "native", "", Encoding.JSON)
        self.queue.note(origin, outcomes, lambda positions: [b"%d" % position for position in positions], held)

    def taken(self, events: int = 1_000, size: int = 1 << 20) -> tuple[list[Rejection], dict[int, int]]:
        """Take the waiting events."""
        taken, omitted = self.queue.take(events, size)
        return [row for refused in taken for row in refused.rejections()], dict(omitted)

    def omitted(self) -> float | None:
        """Return the metric of left-out events."""
        return self.metrics.registry.get_sample_value("headgate_rejections_total", {"fate": "omitted"})


async def test_only_refused_events_are_kept() -> None:
    door = Door()
    conflict = Outcome(Status.CONFLICT, problem=CONFLICT)
    door.refuse(ACCEPTED, REJECTED, Outcome(Status.ABORTED, problem=ABORTED), Outcome(Status.DUPLICATE), conflict)
    assert door.queue.ready.is_set()
    assert door.queue.waiting == 2
    (first, second), omitted = door.taken()
    assert omitted == {}
    assert (first.reason, first.field, first.message, first.event) == (*MISSING[:3], b"1")
    assert (second.reason, second.event, second.size) == (CONFLICT.reason, b"4", 1)
    assert (first.workspace_id, first.key_id, first.request_id, first.receiver) == (1, "key_1", "r-1", "native")
    # Times and ids are in the order of the request, a microsecond apart.
    assert [first.received_at, second.received_at] == [NOW, NOW + 1]
    assert ledger.first_id(NOW) <= first.id < ledger.first_id(NOW + 1) <= second.id < ledger.first_id(NOW + 2)
    assert not door.queue.ready.is_set()
    assert door.taken() == ([], {})


async def test_a_request_without_a_refused_event_does_not_wake_the_job() -> None:
    door = Door()
    door.refuse(ACCEPTED, ACCEPTED)
    assert not door.queue.ready.is_set()


async def test_off() -> None:
    door = Door(most=0)
    door.refuse(REJECTED)
    assert door.taken() == ([], {})
    assert not door.queue.ready.is_set()


async def test_a_flood_is_sampled_and_the_rest_is_counted() -> None:
    door = Door(burst=5, per_second=2.0)
    door.refuse(*[REJECTED] * 8)
    rows, omitted = door.taken()
    assert [row.event for row in rows] == [b"0", b"1", b"2", b"3", b"4"]
    assert omitted == {1: 3}
    for _ in range(4):
        door.seconds += 1.0
        door.refuse(*[REJECTED] * 10)
    rows, omitted = door.taken()
    assert len(rows) == 8
    assert omitted == {1: 32}
    assert door.omitted() == 35
    door.seconds += 60.0
    door.refuse(*[REJECTED] * 5)
    assert len(door.taken()[0]) == 5


async def test_a_flood_hides_neither_another_reason_nor_another_workspace() -> None:
    door = Door(burst=3, per_second=0.0)
    door.refuse(*[REJECTED] * 50, Outcome(Status.CONFLICT, problem=CONFLICT))
    door.refuse(REJECTED, workspace=2)
    rows, omitted = door.taken()
    assert [(row.workspace_id, row.reason) for row in rows] == [
        *[(1, "MISSING_FIELD")] * 3,
        (1, "IDEMPOTENCY_CONFLICT"),
        (2, "MISSING_FIELD"),
    ]
    assert omitted == {1: 47}


async def test_waiting_events_are_bounded_in_number() -> None:
    door = Door(waiting=10)
    for _ in range(4):
        door.refuse(*[REJECTED] * 4)
    assert door.queue.waiting == 10
    rows, omitted = door.taken()
    assert len(rows) == 10
    assert omitted == {1: 6}


async def test_waiting_events_are_bounded_in_bytes_but_one_request_of_any_size_is_accepted() -> None:
    door = Door(waiting_bytes=100)
    door.refuse(REJECTED, held=1_000)
    door.refuse(REJECTED, held=1)
    rows, omitted = door.taken()
    assert (len(rows), omitted) == (1, {1: 1})
    door.refuse(REJECTED, held=60)
    door.refuse(REJECTED, held=40)
    door.refuse(REJECTED, held=1)
    rows, omitted = door.taken()
    assert (len(rows), omitted) == (2, {1: 1})


async def test_it_is_taken_in_parts_and_put_back_in_order() -> None:
    door = Door()
    for count in (1, 2, 3):
        door.refuse(*[ACCEPTED] * (10 * count), *[REJECTED] * count)
    first, _ = door.queue.take(2, 1_000)
    assert [len(refused.positions) for refused in first] == [1, 2]
    assert door.queue.ready.is_set()
    alone, _ = door.queue.take(100, 1)
    assert [len(refused.positions) for refused in alone] == [3]
    assert not door.queue.ready.is_set()
    door.queue.put_back(alone, {})
    door.queue.put_back(first, {7: 5})
    assert door.queue.ready.is_set()
    assert door.queue.waiting == 6
    rows, omitted = door.taken()
    assert [row.event for row in rows] == [b"10", b"20", b"21", b"30", b"31", b"32"]
    assert omitted == {7: 5}


async def test_events_that_cannot_be_written_count_as_left_out() -> None:
    door = Door()
    door.refuse(REJECTED, REJECTED)
    door.queue.take(10, 10)
    door.queue.lose(1, 2)
    assert door.queue.ready.is_set()
    assert door.taken() == ([], {1: 2})
    assert door.omitted() == 2


async def test_idle_workspaces_use_no_memory() -> None:
    door = Door(burst=5, per_second=1.0)
    for workspace in range(1_000):
        door.refuse(REJECTED, workspace=workspace)
    door.taken()
    door.seconds += 5.0
    door.refuse(REJECTED)
    door.taken()
    assert len(door.queue._allowances) == 1


def _huge(event: bytes, encoding: Encoding) -> Rejection:
    origin = Origin(1, "key_1", "r-1", "native", "", encoding)
    queue = RejectionQueue(RejectionConfig(), Metrics())

    def texts(positions: Sequence[int]) -> Sequence[bytes]:
        return [event]

    queue.note(origin, [REJECTED], texts, len(event))
    ((refused,), _) = queue.take(1, 1)
    (row,) = refused.rejections()
    return row


async def test_a_large_event_is_cut_between_two_characters() -> None:
    event = b'"' + "é".encode() * MOST_BYTES + b'"'
    row = _huge(event, Encoding.JSON)
    assert row.is_cut
    assert row.size == len(event)
    assert len(row.event) == MOST_BYTES - 1
    assert event.decode().startswith(row.event.decode())
    whole = b"x" * MOST_BYTES
    assert not _huge(whole, Encoding.JSON).is_cut


def test_bytes_are_cut_anywhere() -> None:
    assert kept_of(b"\xff" * (MOST_BYTES + 1), Encoding.PROTOBUF) == b"\xff" * MOST_BYTES


@pytest.mark.parametrize(
    ("text", "stored"),
    [("plain é", "plain é"), ("a\0b", "a\\u0000b"), ("\ud800", "\\ud800"), ("x" * 2_000, "x" * 1_000)],
    ids=["text", "U+0000", "a lone surrogate", "long"],
)
def test_texts_that_every_store_accepts(text: str, stored: str) -> None:
    assert storable(text) == stored


def test_a_line_that_is_no_text_is_kept_as_bytes() -> None:
    for event, encoding in ((b"", Encoding.JSON), ("é".encode(), Encoding.JSON), (b"\xff", Encoding.BYTES)):
        assert encoding_of(event, Encoding.JSON) is encoding
        assert encoding_of(event, Encoding.PROTOBUF) is Encoding.PROTOBUF
    assert kept_of(b"\xff" * 100_000, Encoding.BYTES) == b"\xff" * MOST_BYTES
