"""`headgate rejections`: list, show and replay refused events."""

import sys
from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any, BinaryIO, TypeVar

import click
import orjson

from headgate_server.cli.paging import pages
from headgate_server.cli.running import run, show
from headgate_server.cli.tables import printable
from headgate_server.cli.target import options_of_target, within, workspace_option
from headgate_server.cli.values import time_of
from headgate_server.core import jsonbody, timestamps, validate
from headgate_server.core.errors import HeadgateError, InvalidRequest, SetupError
from headgate_server.core.model import CLOUDEVENTS, NATIVE, STORED, Draft, Outcome, Problem, Status
from headgate_server.core.reasons import Reason
from headgate_server.receivers.registry import RECEIVERS
from headgate_server.rpc import wire
from headgate_server.rpc.api import Api

_PAGE = 100
"""The number of rejections that are read and replayed at once."""
_MOST_READ = 8 * 1024 * 1024
"""The most bytes of an edited event's file. An event has far fewer."""

_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group()
def rejections() -> None:
    """List, show and replay refused events."""


_RECEIVERS = sorted({NATIVE, CLOUDEVENTS, *RECEIVERS})


def _of_a_workspace(command: _Command) -> _Command:
    return options_of_target(workspace_option(command))


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
@_of_a_workspace
@_filters
@click.option("--limit", type=click.IntRange(1, 100_000), default=50, show_default=True, help="The most rejections.")
def list_(workspace: str | None, limit: int, **values: Any) -> None:
    """List rejections, the newest first: id, time, reason, field, API, whether it was replayed, and the message."""

    async def work() -> None:
        left, omitted = limit, 0
        request = _query(values) | {"page_size": min(limit, _PAGE)}
        async with within(values, workspace) as api:
            async for page in pages(api, "RejectionService/ListRejections", request):
                omitted = page["omitted"]
                show(*map(_line, page["rejections"][:left]))
                left -= len(page["rejections"])
                if left <= 0:
                    break
        if omitted:
            click.echo(f"headgate: {omitted} more were left out, since too many came at once", err=True)

    run(work())


@rejections.command("show")
@_of_a_workspace
@click.argument("rejection_id", metavar="ID")
def show_(workspace: str | None, rejection_id: str, **values: Any) -> None:
    """Print the rejection with this ID as JSON, with the event as it was sent."""

    async def work() -> None:
        async with within(values, workspace) as api:
            found, _ = await api.texts("RejectionService/GetRejection", {"id": rejection_id}, "rejection")
        show(*found)

    run(work())


@rejections.command("replay")
@_of_a_workspace
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
    workspace: str | None,
    rejection_id: str | None,
    event: BinaryIO | None,
    all_: bool,
    validate_only: bool,
    **values: Any,
) -> None:
    """Replay the rejected event with this ID, unchanged or edited, or --all that match.

    Prints a line of JSON for each: the rejection's id, and the result as in a batch. Exits with 1 if one is not stored.
    """
    if (rejection_id is None) != all_:
        raise click.UsageError("give an ID or --all")
    if event is not None and all_:
        raise click.UsageError("--event is for one ID")

    async def work() -> bool:
        if rejection_id is not None:
            edited = None if event is None else _edited(event.read(_MOST_READ + 1))
            async with within(values, workspace) as api:
                return _print_result(rejection_id, await _one(api, rejection_id, edited, validate_only))
        stored = True
        request = _query(values) | {"page_size": _PAGE, "validate_only": validate_only}
        async with within(values, workspace) as api:
            async for page in pages(api, "RejectionService/ReplayRejections", request):
                for each in page["results"]:
                    stored = _print_result(each["rejection_id"], each["result"]) and stored
        return stored

    if not run(work()):
        sys.exit(1)


async def _one(api: Api, rejection_id: str, edited: Draft | Problem | None, validate_only: bool) -> dict[str, Any]:
    """Replay a rejection, and return the result."""
    if isinstance(edited, Problem):
        await api.call("RejectionService/GetRejection", {"id": rejection_id})
        return _rejected(edited)
    request: dict[str, Any] = {"id": rejection_id, "validate_only": validate_only}
    if edited is not None:
        request["event"] = _message(edited)
    try:
        result: dict[str, Any] = (await api.call("RejectionService/ReplayRejection", request))["result"]
    except HeadgateError as error:
        if error.reason is not Reason.NOT_REPLAYABLE:
            raise
        return _rejected(Problem(error.reason, "", error.message))
    if edited is not None and edited.warnings:
        result["warnings"] = [*edited.warnings, *result.get("warnings", ())]
    return result


def _rejected(problem: Problem) -> dict[str, Any]:
    return wire.result_json(0, Outcome(Status.REJECTED, problem=problem))


def _edited(text: bytes) -> Draft | Problem:
    """Read and check an edited event. Raises `SetupError` if the text is not one value of JSON."""
    if len(text) > _MOST_READ:
        raise SetupError(f"the file has more than {_MOST_READ} bytes")
    try:
        return validate.native_json(jsonbody.read_one(text))
    except InvalidRequest as error:
        raise SetupError(error.message.replace("The body", "The file")) from None


def _message(draft: Draft) -> dict[str, Any]:
    """Return a checked event as a message. Its data stays a text, because a Struct does not hold every number."""
    event: dict[str, Any] = {"type": draft.type, "source": draft.source, "subject": draft.subject}
    if draft.key is not None:
        event["idempotency_key"] = draft.key
    if draft.data is not None:
        event["data_json"] = b64encode(draft.data).decode()
    if draft.occurred_at is not None:
        event["occurred_at"] = timestamps.format(draft.occurred_at)
    return event


def _query(values: dict[str, Any]) -> dict[str, Any]:
    """Return the members of a request for the options of `_filters`. Raises `SetupError`."""
    given = {name: values[name] for name in ("reason", "receiver", "key_id") if values[name] is not None}
    for name in ("from", "to"):
        time = time_of(values[f"received_{name}"], f"--{name}")
        if time is not None:
            given[name] = timestamps.format(time)
    return given


def _line(rejection: dict[str, Any]) -> str:
    state = "replayed" if "replayed_at" in rejection else "-"
    parts: Sequence[str] = (
        *(rejection["id"], rejection["received_at"], rejection["reason"], rejection["field"] or "-"),
        *(rejection["receiver"], state),
        # A message may quote the event.
        rejection["message"],
    )
    return printable("  ".join(parts))


def _print_result(rejection_id: str, result: dict[str, Any]) -> bool:
    """Print the result of a replay, as that of a batch with this event alone. Return whether the event is stored."""
    show(orjson.dumps({"rejection_id": rejection_id, "result": result | {"index": 0}}).decode())
    return result["status"] in STORED
