"""`headgate event-types`: put, show, list and delete event types."""

from base64 import b64encode
from collections.abc import Callable
from typing import Any, BinaryIO, TypeVar

import click

from headgate_server.cli.paging import pages_of_texts
from headgate_server.cli.running import run, show
from headgate_server.cli.tables import printable
from headgate_server.cli.target import options_of_target, within, workspace_option
from headgate_server.core import canonical, jsonbody
from headgate_server.core import event_types as checked
from headgate_server.core.errors import InvalidRequest, SetupError
from headgate_server.core.event_types import Mode

_PAGE = 100
_MOST_READ = 8 * 1024 * 1024
"""The most bytes of a schema's file. The schema itself may have 64 KiB without white space."""

_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group("event-types")
def event_types() -> None:
    """Manage the event types of a workspace: names with a JSON Schema for the data of their events."""


def _of_a_workspace(command: _Command) -> _Command:
    return options_of_target(workspace_option(command))


@event_types.command("put")
@_of_a_workspace
@click.argument("type_", metavar="TYPE")
@click.option(
    "--schema", type=click.File("rb"), required=True, help="A file with a JSON Schema (2020-12); '-' is standard input."
)
@click.option(
    "--mode",
    type=click.Choice([mode.value for mode in Mode]),
    default=Mode.STRICT.value,
    show_default=True,
    help="Reject events that do not match, or store them with a warning.",
)
def put(workspace: str | None, type_: str, schema: BinaryIO, mode: str, **values: Any) -> None:
    """Create or replace the event type TYPE. It applies everywhere within 5 seconds."""

    async def work() -> None:
        sent = _schema(schema.read(_MOST_READ + 1))
        request = {"event_type": checked.type_of(type_), "schema_json": b64encode(sent).decode(), "mode": mode}
        async with within(values, workspace) as api:
            made, _ = await api.texts("EventTypeService/PutEventType", request, "event_type")
        show(*map(_line, made))

    run(work())


@event_types.command("get")
@_of_a_workspace
@click.argument("type_", metavar="TYPE")
def get(workspace: str | None, type_: str, **values: Any) -> None:
    """Print the schema of the event type TYPE as JSON."""

    async def work() -> None:
        async with within(values, workspace) as api:
            found, _ = await api.texts(
                "EventTypeService/GetEventType", {"event_type": checked.type_of(type_)}, "event_type"
            )
        show(*(_schema_of(_read(line)).decode() for line in found))

    run(work())


@event_types.command("list")
@_of_a_workspace
def list_(workspace: str | None, **values: Any) -> None:
    """List event types: name, mode, bytes of the schema, time of the last change."""

    async def work() -> None:
        async with within(values, workspace) as api:
            request = {"page_size": _PAGE}
            async for page in pages_of_texts(api, "EventTypeService/ListEventTypes", request, "event_types"):
                show(*map(_line, page))

    run(work())


@event_types.command("delete")
@_of_a_workspace
@click.argument("type_", metavar="TYPE")
def delete(workspace: str | None, type_: str, **values: Any) -> None:
    """Remove the event type TYPE. Its events stay."""

    async def work() -> None:
        async with within(values, workspace) as api:
            await api.call("EventTypeService/DeleteEventType", {"event_type": checked.type_of(type_)})

    run(work())


def _schema(text: bytes) -> bytes:
    if len(text) > _MOST_READ:
        raise SetupError(f"the file has more than {_MOST_READ} bytes")
    try:
        return checked.schema_of(jsonbody.read_one(text))
    except InvalidRequest as error:
        raise SetupError(error.message.replace("The body", "The file")) from None


def _read(line: str) -> dict[str, Any]:
    """Return an event type that was printed, with every digit of its numbers."""
    value: dict[str, Any] = jsonbody.read_one(line.encode())
    return value


def _schema_of(one: dict[str, Any]) -> bytes:
    return canonical.encode(one["schema"])


def _line(line: str) -> str:
    one = _read(line)
    # A type may hold any character.
    return f"{printable(one['type'])}  {one['mode']}  {len(_schema_of(one))} bytes  {one['updated_at']}"
