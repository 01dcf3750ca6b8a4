"""The compiled core writes the rows that asyncpg would send."""

import struct
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given

from headgate_server.core import ledger
from headgate_server.core.model import Draft, Problem, StoredEvent, Submission
from headgate_server.core.settle import Settlement
from tests.native import twins
from tests.native.columns import ODD_VALUES, is_of
from tests.native.drawn import SLOTS
from tests.native.driver import TYPES, Driver
from tests.support.drafts import draft

pytestmark = twins.needs_core


@pytest.fixture(scope="module")
def driver() -> Iterator[Driver]:
    """Return asyncpg, connected to a socket of ours."""
    running = Driver()
    yield running
    running.close()


def _rows(*slots: Draft | Problem) -> list[StoredEvent]:
    settlement = Settlement(1, ledger.genesis("acme"), {}, {}, twins.NOW)
    settlement.decide(Submission(workspace_id=1, slots=slots))
    return list(settlement.rows)


def _documented(rows: list[StoredEvent]) -> bytes:
    """Return rows in the binary format of COPY, as PostgreSQL documents it."""
    stream = bytearray(b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0))
    for row in rows:
        stream += struct.pack("!h", len(row))
        for value in row:
            encoded: Any = value.encode() if isinstance(value, str) else value
            encoded = struct.pack("!q", encoded) if isinstance(encoded, int) else encoded
            stream += struct.pack("!i", -1) if encoded is None else struct.pack("!i", len(encoded)) + encoded
    return bytes(stream + struct.pack("!h", -1))


@given(slots=SLOTS)
def test_any_rows(driver: Driver, slots: list[Draft | Problem]) -> None:
    rows = _rows(*slots)
    assert driver.compare(rows)
    assert b"".join(twins.core().copy_rows(rows)) == _documented(rows)


def test_many_rows_are_copied_in_pieces(driver: Driver) -> None:
    rows = _rows(*[draft(data={"text": "é" * 1_000})] * 1_000)
    pieces = twins.core().copy_rows(rows)
    assert len(pieces) > 3
    assert all(len(piece) < 600_000 for piece in pieces)
    assert b"".join(pieces) == _documented(rows)
    assert driver.compare(rows)


@pytest.mark.parametrize("column", StoredEvent._fields)
def test_odd_values_in_each_column(driver: Driver, column: str) -> None:
    """The core writes what the column can hold. It leaves all else to asyncpg, which refuses it, or converts it."""
    good, other = _rows(draft("a"), draft("b"))
    written = []
    for value in ODD_VALUES:
        ours = driver.compare([other, good._replace(**{column: value}), other])
        assert ours is is_of(TYPES[column], value), repr(value)[:50]
        written.append(ours)
    assert set(written) == {True, False}


@pytest.mark.parametrize("sent", [b"", b"\0\0", b"\0\0\0\x09lo", b"\0\0\0\x09logind\0\0\1\0half"])
def test_a_connection_that_is_given_up_half_way_is_no_error(driver: Driver, sent: bytes) -> None:
    """asyncpg gives one up with a copy that it refuses."""
    assert driver.given_up(sent) == [None]


@pytest.mark.parametrize("row", [(), (1,), (None,) * 18], ids=len)
def test_a_row_of_other_columns_is_left_to_the_driver(row: tuple[Any, ...]) -> None:
    assert twins.core().copy_rows([row]) is None
