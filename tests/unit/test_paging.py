"""Lists are read to their end, or to a limit, and not further."""

from collections.abc import Mapping
from typing import Any, cast

import pytest

from headgate_server.cli.paging import pages, pages_of_texts
from headgate_server.rpc.api import Api


class _Numbers:
    """A list of numbers. It notes the pages that it was asked for."""

    def __init__(self, count: int):
        self.count = count
        self.asked: list[tuple[int, str]] = []

    async def call(self, _: str, request: Mapping[str, Any]) -> Any:
        items, token = await self.texts("", request, "")
        return {"items": items, "next_page_token": token}

    async def texts(self, _: str, request: Mapping[str, Any], __: str) -> tuple[list[str], str]:
        size, token = request["page_size"], request["page_token"]
        self.asked.append((size, token))
        end = min(int(token or 0) + size, self.count)
        return list(map(str, range(int(token or 0), end))), str(end) if end < self.count else ""


@pytest.mark.parametrize(("count", "calls"), [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2), (5, 3)])
async def test_all_pages_are_read_once(count: int, calls: int) -> None:
    numbers = _Numbers(count)
    found = [item async for page in pages(cast("Api", numbers), "", {"page_size": 2}) for item in page["items"]]
    assert found == list(map(str, range(count)))
    assert numbers.asked == [(2, str(2 * call) if call else "") for call in range(calls)]


async def test_no_page_is_asked_for_before_it_is_taken() -> None:
    """Replays happen when a page is asked for, and `| head` takes no more."""
    numbers = _Numbers(5)
    async for _ in pages(cast("Api", numbers), "", {"page_size": 2}):
        break
    assert len(numbers.asked) == 1


@pytest.mark.parametrize(
    ("limit", "sizes"),
    [(1, [1]), (2, [2]), (3, [2, 1]), (4, [2, 2]), (5, [2, 2, 1]), (9, [2, 2, 2]), (None, [2, 2, 2])],
)
async def test_a_limit_is_the_most_that_is_read(limit: int | None, sizes: list[int]) -> None:
    numbers = _Numbers(5)
    taken = pages_of_texts(cast("Api", numbers), "", {"page_size": 2}, "items", limit=limit)
    found = [item async for page in taken for item in page]
    assert found == list(map(str, range(5)))[:limit]
    assert [size for size, _ in numbers.asked] == sizes
