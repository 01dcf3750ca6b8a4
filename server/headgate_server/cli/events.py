"""`headgate events`: stored events as NDJSON."""

from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import click

from headgate_server.cli.paging import pages_of_texts
from headgate_server.cli.running import check_output, run, show
from headgate_server.cli.target import options_of_target, within, workspace_option
from headgate_server.cli.values import time_of
from headgate_server.core import timestamps
from headgate_server.rpc.api import Api

_PAGE_EVENTS = 500

_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group()
def events() -> None:
    """Read a workspace's events: one JSON object a line, as REST shows them."""


def _of_a_workspace(command: _Command) -> _Command:
    return options_of_target(workspace_option(command))


def _filtered(command: _Command) -> _Command:
    command = click.option("--subject", default="", help="Only events of this subject.")(command)
    command = click.option("--source", default="", help="Only events of this source.")(command)
    return click.option(
        "--type", "type_", default="", help="Only events of this type, such as order.completed or 'order.*'."
    )(command)


@events.command("list")
@_of_a_workspace
@_filtered
@click.option("--from", "from_", metavar="TIME", help="Only events stored at this time or later: 2024-01-15T10:30:00Z.")
@click.option("--to", metavar="TIME", help="Only events stored before this time.")
@click.option("--idempotency-key", help="Only the event with this key, within --source.")
@click.option("--newest-first", is_flag=True, help="Begin with the newest event.")
@click.option("--limit", type=click.IntRange(1), default=50, show_default=True, help="The most events to print.")
def list_(workspace: str | None, limit: int, idempotency_key: str | None, newest_first: bool, **values: Any) -> None:
    """Print stored events, the oldest first."""

    async def work() -> None:
        request = _filters(values) | times_of(values) | {"newest_first": newest_first}
        if idempotency_key is not None:
            # The key of an event without a source is in the scope of an empty one.
            request |= {"idempotency_key": idempotency_key, "source": values["source"]}
        check_output()
        async with within(values, workspace) as api:
            async for lines in pages_of_events(api, request, limit):
                show(*lines)

    run(work())


@events.command("get")
@_of_a_workspace
@click.argument("event_id", metavar="ID")
def get(workspace: str | None, event_id: str, **values: Any) -> None:
    """Print the event with this ID."""

    async def work() -> None:
        async with within(values, workspace) as api:
            lines, _ = await api.texts("EventService/GetEvent", {"id": event_id}, "event")
        show(*lines)

    run(work())


@events.command("tail")
@_of_a_workspace
@_filtered
@click.option(
    "--after",
    type=click.IntRange(0),
    metavar="SEQUENCE",
    help="Begin after this sequence; 0 is the beginning. Without it: only events that are stored from now on.",
)
def tail(workspace: str | None, after: int | None, **values: Any) -> None:
    """Print events as they are stored, until Ctrl-C."""

    async def work() -> None:
        check_output()
        request = _filters(values) | ({} if after is None else {"after_sequence": after})
        async with (
            within(values, workspace) as api,
            aclosing(api.follow("EventService/Subscribe", request, "event")) as lines,
        ):
            async for line in lines:
                show(line)

    run(work())


def pages_of_events(api: Api, request: dict[str, Any], limit: int) -> AsyncIterator[list[str]]:
    """Yield the events of a list, page by page, at most `limit`. Raises `HeadgateError`."""
    request = request | {"page_size": _PAGE_EVENTS}
    return pages_of_texts(api, "EventService/ListEvents", request, "events", limit=limit)


def times_of(values: dict[str, Any]) -> dict[str, str]:
    """Return the members of a request for the options --from and --to. Raises `SetupError`."""
    given = {name: time_of(values[option], f"--{name}") for name, option in (("from", "from_"), ("to", "to"))}
    return {name: timestamps.format(time) for name, time in given.items() if time is not None}


def _filters(values: dict[str, Any]) -> dict[str, Any]:
    """Return the members of a request for the options of `_filtered`."""
    given = {"type": values["type_"], "source": values["source"], "subject": values["subject"]}
    return {name: value for name, value in given.items() if value}
