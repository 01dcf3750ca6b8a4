"""`headgate rejections`: list, show and replay refused events."""

import contextlib
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, BinaryIO, NamedTuple, TypeVar
from uuid import UUID

import click
import orjson

from headgate_server.access import admin
from headgate_server.cli.options import options
from headgate_server.cli.running import run, show
from headgate_server.config import StoreConfig
from headgate_server.core import jsonbody, timestamps, validate
from headgate_server.core.errors import NotFound, SetupError
from headgate_server.core.model import CLOUDEVENTS, NATIVE, STORED, Workspace
from headgate_server.core.reasons import Reason
from headgate_server.core.rejections import Rejection, RejectionQuery
from headgate_server.core.types import EventId, RejectionId, WorkspaceId
from headgate_server.ingest.checker import Checker
from headgate_server.ingest.committer import Committer
from headgate_server.ingest.event_types import EventTypeChecks
from headgate_server.ingest.ingest import Ingest
from headgate_server.ingest.replay import Replay, Replaying
from headgate_server.process.setting import build
from headgate_server.receivers.registry import RECEIVERS
from headgate_server.rpc import cloudevents, decode, wire
from headgate_server.rpc.pipeline import printer
from headgate_server.store import Audit, Database, EventTypes, Ledgers, Limits, Rejections

_PAGE = 100
"""The number of rejections that are read and replayed at once."""

_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group()
def rejections() -> None:
    """List, show and replay refused events."""


_RECEIVERS = sorted({NATIVE, CLOUDEVENTS, *RECEIVERS})
_WORKSPACE = click.option("--workspace", required=True, help="The workspace of the events.")


def _filters(command: _Command) -> _Command:
    """Add the options that filter rejections to a command."""
    time_help = "Only those refused {} this time, such as 2024-01-15T10:30:00Z."
    for option in (
        click.option("--to", "received_to", metavar="TIME", help=time_help.format("before")),
        click.option("--from", "received_from", metavar="TIME", help=time_help.format("at or after")),
        click.option("--key-id", help="Only those of this API key."),
        click.option("--receiver", type=click.Choice(_RECEIVERS), help="Only those through this API."),
        click.option("--reason", metavar="REASON", help="Only those with this reason, such as MISSING_FIELD."),
    ):
        command = option(command)
    return command


@rejections.command("list")
@options(StoreConfig)
@_WORKSPACE
@_filters
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="The most rejections.")
def list_(workspace: str, limit: int, **values: Any) -> None:
    """List rejections, the newest first: id, time, reason, field, API, whether it was replayed, and the message."""

    async def work() -> None:
        async with _opened(values, workspace) as of:
            listed: list[Rejection] = []
            async for page in _pages(of.rejections, _query(of.workspace.id, min(limit, _PAGE), values)):
                listed += page
                if len(listed) >= limit:
                    break
            omitted = await of.rejections.omitted(of.workspace.id)
        show(*map(_line, listed[:limit]))
        if omitted:
            click.echo(f"headgate: {omitted} more were left out, since too many came at once", err=True)

    run(work())


@rejections.command("show")
@options(StoreConfig)
@_WORKSPACE
@click.argument("rejection_id", metavar="ID")
def show_(workspace: str, rejection_id: str, **values: Any) -> None:
    """Print the rejection with this ID as JSON, with the event as it was sent."""

    async def work() -> None:
        async with _opened(values, workspace) as of:
            rejection = await _rejection(of, rejection_id)
        show(printer.print_json(wire.rejection_message(rejection)).decode())

    run(work())


@rejections.command("replay")
@options(StoreConfig)
@_WORKSPACE
@click.argument("rejection_id", metavar="[ID]", required=False)
@click.option(
    "--event",
    type=click.File("rb"),
    help="A file with an edited event as JSON, to store instead; '-' is standard input.",
)
@click.option(
    "--all", "all_", is_flag=True, help="Replay all that match, except those replayed before. Instead of an ID."
)
@_filters
@click.option("--validate-only", is_flag=True, help="Print the results without storing anything.")
def replay(
    workspace: str, rejection_id: str | None, event: BinaryIO | None, all_: bool, validate_only: bool, **values: Any
) -> None:
    """Replay the rejected event with this ID, unchanged or edited, or --all that match.

    Prints a line of JSON for each: the rejection's id, and the result as in a batch. Exits with 1 if one is not stored.
    """
    if (rejection_id is None) != all_:
        raise click.UsageError("give an ID or --all")
    if event is not None and all_:
        raise click.UsageError("--event is for one ID")

    async def work() -> bool:
        stored = True
        async with _opened(values, workspace) as of, _replaying(of) as replaying:
            if rejection_id is not None:
                rejection = await _rejection(of, rejection_id)
                return _print_results([await _one(replaying, of.workspace, rejection, event, validate_only)])
            query = _query(of.workspace.id, _PAGE, values, replayed=False, newest_first=False)
            async for page in _pages(of.rejections, query):
                replays = await replaying.as_sent(of.workspace, page, admin.operator(), validate_only=validate_only)
                stored = _print_results(replays) and stored
        return stored

    if not run(work()):
        sys.exit(1)


async def _one(
    replaying: Replaying, workspace: Workspace, rejection: Rejection, event: BinaryIO | None, validate_only: bool
) -> Replay:
    if event is None:
        return (await replaying.as_sent(workspace, [rejection], admin.operator(), validate_only=validate_only))[0]
    slot = validate.native_json(jsonbody.read_one(event.read()))
    return await replaying.edited(workspace, rejection, slot, admin.operator(), validate_only=validate_only)


class _Opened(NamedTuple):
    """A workspace, and the topics of the store that the commands need."""

    workspace: Workspace
    rejections: Rejections
    ledgers: Ledgers
    limits: Limits
    event_types: EventTypes
    audit: Audit
    database: Database


@contextlib.asynccontextmanager
async def _opened(values: dict[str, Any], name: str) -> AsyncIterator[_Opened]:
    """Open the store, and find the workspace with this name. Raises `NotFound`."""
    async with admin.opened(build(StoreConfig, values).location) as store:
        workspace = await store.directory.workspace(name)
        if workspace is None:
            raise NotFound(f"there is no workspace {name!r}")
        topics = (store.rejections, store.ledgers, store.limits, store.event_types, store.audit, store.database)
        yield _Opened(workspace, *topics)


@contextlib.asynccontextmanager
async def _replaying(of: _Opened) -> AsyncIterator[Replaying]:
    """Return the use case of replays. Servers may use the store at the same time."""
    committer, checker = Committer(of.database), Checker()
    try:
        ingest = Ingest(of.ledgers, of.limits, committer, EventTypeChecks(of.event_types, checker))
        readers = (RECEIVERS, decode.proto_event, cloudevents.as_kept)
        yield Replaying(of.rejections, of.ledgers, ingest, *readers, of.audit)
    finally:
        await committer.close()
        await checker.close()


async def _rejection(of: _Opened, rejection_id: str) -> Rejection:
    try:
        rejection = await of.rejections.get(of.workspace.id, RejectionId(EventId(UUID(rejection_id).bytes)))
    except ValueError:
        raise SetupError(
            f"{rejection_id!r} is not the id of a rejection; `headgate rejections list` shows them"
        ) from None
    if rejection is None:
        raise NotFound(f"there is no rejection {rejection_id} in this workspace")
    return rejection


async def _pages(topic: Rejections, query: RejectionQuery) -> AsyncIterator[Sequence[Rejection]]:
    """Yield the rejections that match, page by page."""
    while True:
        page = await topic.page(query)
        yield page.rejections
        if page.resume is None:
            return
        query = query.after_id(page.resume)


def _query(workspace_id: WorkspaceId, limit: int, values: dict[str, Any], **more: Any) -> RejectionQuery:
    """Return the query of the options. Raises `SetupError`."""
    reason = values["reason"]
    if reason is not None and reason not in tuple(Reason):
        raise SetupError(f"there is no reason {reason!r}; docs/reasons.md lists them")
    return RejectionQuery(
        workspace_id=workspace_id,
        limit=limit,
        reason=reason,
        receiver=values["receiver"],
        key_id=values["key_id"],
        received_from=_microseconds(values["received_from"]),
        received_to=_microseconds(values["received_to"]),
        **more,
    )


def _microseconds(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        return timestamps.parse(text)[0]
    except ValueError as error:
        raise SetupError(str(error)) from None


def _line(rejection: Rejection) -> str:
    state = "-" if rejection.replayed_at is None else "replayed"
    received_at = timestamps.format(rejection.received_at)
    field = rejection.field or "-"
    parts = (wire.id_text(rejection.id), received_at, rejection.reason, field, rejection.receiver, state)
    # A message may quote the event.
    message = "".join(each if each.isprintable() else " " for each in rejection.message)
    return "  ".join((*parts, message))


def _print_results(replays: Sequence[Replay]) -> bool:
    """Print the results of replays. Return whether all events are stored."""
    for replay in replays:
        result = wire.result_json(0, replay.outcome)
        line = {"rejection_id": wire.id_text(replay.rejection.id), "result": result}
        show(orjson.dumps(line).decode())
    return all(replay.outcome.status in STORED for replay in replays)
