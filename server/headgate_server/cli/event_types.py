"""`headgate event-types`: put, show, list and delete event types."""

import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any, BinaryIO, TypeVar

import click

from headgate_server.access import admin
from headgate_server.cli.options import options
from headgate_server.cli.running import run, show
from headgate_server.config import StoreConfig
from headgate_server.core import event_types as checked
from headgate_server.core import jsonbody, timestamps
from headgate_server.core.errors import InvalidRequest, SetupError
from headgate_server.core.event_types import EventType, Mode
from headgate_server.core.types import WorkspaceId
from headgate_server.ingest.change_event_types import ChangeEventTypes
from headgate_server.ingest.checker import Checker
from headgate_server.ingest.event_types import EventTypeChecks
from headgate_server.process.setting import build
from headgate_server.store import EventTypes
from headgate_server.store.event_types import absent

_PAGE = 100
_MOST_READ = 8 * 1024 * 1024
"""The most bytes of a schema's file. The schema itself may have 64 KiB without white space."""

_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group("event-types")
def event_types() -> None:
    """Manage the event types of a workspace: names with a JSON Schema for the data of their events."""


def _of_a_workspace(command: _Command) -> _Command:
    command = click.option("--workspace", required=True, help="The workspace of the event types.")(command)
    return options(StoreConfig)(command)


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
def put(workspace: str, type_: str, schema: BinaryIO, mode: str, **values: Any) -> None:
    """Create or replace the event type TYPE. It applies everywhere within 5 seconds."""

    async def work() -> None:
        sent = _schema(schema.read(_MOST_READ + 1))
        async with _opened(values, workspace) as (topic, workspace_id), _changing(topic) as change:
            made = await change.put(workspace_id, checked.type_of(type_), sent, Mode(mode), admin.operator())
        show(_line(made))

    run(work())


@event_types.command("get")
@_of_a_workspace
@click.argument("type_", metavar="TYPE")
def get(workspace: str, type_: str, **values: Any) -> None:
    """Print the schema of the event type TYPE as JSON."""

    async def work() -> None:
        async with _opened(values, workspace) as (topic, workspace_id):
            found = await topic.get(workspace_id, checked.type_of(type_))
        if found is None:
            raise absent(type_)
        show(found.schema.decode())

    run(work())


@event_types.command("list")
@_of_a_workspace
def list_(workspace: str, **values: Any) -> None:
    """List event types: name, mode, bytes of the schema, time of the last change."""

    async def work() -> None:
        async with _opened(values, workspace) as (topic, workspace_id):
            last, more = "", True
            while more:
                page, more = await topic.list(workspace_id, _PAGE, last)
                show(*map(_line, page))
                last = page[-1].type if page else ""

    run(work())


@event_types.command("delete")
@_of_a_workspace
@click.argument("type_", metavar="TYPE")
def delete(workspace: str, type_: str, **values: Any) -> None:
    """Remove the event type TYPE. Its events stay."""

    async def work() -> None:
        async with _opened(values, workspace) as (topic, workspace_id):
            await topic.delete(workspace_id, checked.type_of(type_))

    run(work())


@contextlib.asynccontextmanager
async def _opened(values: dict[str, Any], workspace: str) -> AsyncIterator[tuple[EventTypes, WorkspaceId]]:
    """Open the store for a block. Raises `NotFound` if there is no such workspace."""
    async with admin.opened(build(StoreConfig, values).location) as store:
        row = await admin.find_workspace(store.directory, workspace)
        yield store.event_types, row.id


@contextlib.asynccontextmanager
async def _changing(topic: EventTypes) -> AsyncIterator[ChangeEventTypes]:
    """Return the use case of changes for a block. Servers may use the store at the same time."""
    checker = Checker()
    try:
        yield ChangeEventTypes(topic, EventTypeChecks(topic, checker), checker)
    finally:
        await checker.close()


def _schema(text: bytes) -> bytes:
    if len(text) > _MOST_READ:
        raise SetupError(f"the file has more than {_MOST_READ} bytes")
    try:
        return checked.schema_of(jsonbody.read_one(text))
    except InvalidRequest as error:
        raise SetupError(error.message.replace("The body", "The file")) from None


def _line(one: EventType) -> str:
    # A type may hold any character.
    name = "".join(each if each.isprintable() else " " for each in one.type)
    return f"{name}  {one.mode}  {len(one.schema)} bytes  {timestamps.format(one.updated_at)}"
