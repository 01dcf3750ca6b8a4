"""The groups that the designs store: rows as wide as the product's, under keys that were never used before."""

import os
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from asyncpg.pgproto.pgproto import UUID

from bench.growth.load import FIRST_ID_TIME, WORKSPACE
from headgate_server.core.model import Head
from headgate_server.store.schema import events

COLUMNS = [column.name for column in events.columns]

DEDUPE = COLUMNS.index("dedupe")

_MICROSECONDS = 1_700_000_000_000_000


class Group(NamedTuple):
    """One transaction's worth, ready to be written."""

    identities: Sequence[Any]
    """16 bytes each, or what a design makes of them. Sorted, as the product probes them."""
    rows: Sequence[tuple[Any, ...]]
    head: Head

    @property
    def sequence(self) -> int:
        """The first event's."""
        return self.head.sequence - len(self.rows) + 1


def first_id(sequence: int) -> UUID:
    """Return the smallest id that the event `sequence` may have."""
    return UUID((FIRST_ID_TIME + sequence).to_bytes(8, "big") + bytes(8))


def groups(sequence: int, count: int, size: int) -> list[Group]:
    """Return `count` groups of `size` events, which follow the event `sequence` in its ledger."""
    return [_group(sequence + 1 + number * size, size) for number in range(count)]


def _group(first: int, size: int) -> Group:
    rows = list(_rows(first, size))
    identities = sorted(row[DEDUPE] for row in rows)
    last = first + size - 1
    return Group(identities, rows, Head(last, os.urandom(32), _MICROSECONDS + last))


def _rows(first: int, size: int) -> Iterator[tuple[Any, ...]]:
    randomness = os.urandom(64 * size)
    for number, start in zip(range(first, first + size), range(0, len(randomness), 64), strict=True):
        key = f"order-0123456789ab-{number}"
        data = (
            b'{"amount":49.99,"coupon":null,"currency":"EUR","first":false,"items":[{"quantity":2,"sku":"A-1001"},'
            b'{"quantity":1,"sku":"B-2002"}],"order_id":"%s"}' % key.encode()
        )
        random = randomness[start : start + 64]
        yield (
            WORKSPACE,
            UUID((FIRST_ID_TIME + number).to_bytes(8, "big") + random[:8]),
            number,
            _MICROSECONDS + number,
            "native",
            "order.completed",
            "shop/checkout",
            f"user_{number % 10_000:06}",
            1_705_314_600_000_000,
            data,
            "shop/checkout",
            key,
            random[8:24],
            random[16:32],
            random[32:64],
            random[24:56],
        )
