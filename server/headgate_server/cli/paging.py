"""Reads a list of the API page by page."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

from headgate_server.rpc.api import Api

_Page = TypeVar("_Page")


async def pages(api: Api, method: str, request: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """Yield the answers for all pages of a list; the next one is asked for when it is taken. Raises `HeadgateError`."""

    async def ask(page: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
        answer = await api.call(method, page)
        return answer, answer["next_page_token"]

    async for answer in _all(ask, request):
        yield answer


async def pages_of_texts(
    api: Api, method: str, request: Mapping[str, Any], member: str, *, limit: int | None = None
) -> AsyncIterator[list[str]]:
    """Yield the items of all pages as JSON with every digit of their numbers, at most `limit` items. The request has
    the size of a page. Raises `HeadgateError`.
    """
    left = limit

    async def ask(page: Mapping[str, Any]) -> tuple[list[str], str]:
        nonlocal left
        if left is not None:
            page = {**page, "page_size": min(left, page["page_size"])}
        lines, token = await api.texts(method, page, member)
        if left is not None:
            left -= len(lines)
        return lines, "" if left == 0 else token

    async for lines in _all(ask, request):
        yield lines


async def _all(
    ask: Callable[[Mapping[str, Any]], Awaitable[tuple[_Page, str]]], request: Mapping[str, Any]
) -> AsyncIterator[_Page]:
    """Yield all pages. `ask` returns a page and the token of the next one, empty after the last."""
    page, token = await ask({**request, "page_token": ""})
    yield page
    while token:
        page, token = await ask({**request, "page_token": token})
        yield page
