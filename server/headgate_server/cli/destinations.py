"""`headgate destinations`: create, list, change and replay destinations."""

from collections.abc import Callable
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from headgate_server.cli.paging import pages
from headgate_server.cli.running import check_output, run, show
from headgate_server.cli.tables import printable
from headgate_server.cli.target import options_of_target, within, workspace_option
from headgate_server.cli.values import time_of
from headgate_server.core import timestamps
from headgate_server.core.destinations import PREFIX, Format, Ordering
from headgate_server.core.errors import NotFound, SetupError
from headgate_server.delivery import checked
from headgate_server.delivery.networks import Networks
from headgate_server.delivery.url import check_url
from headgate_server.rpc.api import Api, Direct

_PAGE = 500
_SERVICE = "--service"
"""The option that names the service. `--url` is the URL of a webhook here."""

_FORMATS = click.Choice([form.value for form in Format])
_SEQUENCE = click.IntRange(0, 2**63 - 1)

_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group()
def destinations() -> None:
    """Manage the destinations of a workspace's events."""


def _of_a_workspace(command: _Command) -> _Command:
    return options_of_target(workspace_option(command, flag=_SERVICE), flag=_SERVICE)


@destinations.command("create")
@_of_a_workspace
@click.option("--name", required=True, help="A name, unique in the workspace.")
@click.option("--url", help="The URL that events are posted to. The service is --service.")
@click.option("--stream", help="A stream of NATS JetStream instead of a URL.")
@click.option("--subject-prefix", help="The beginning of a stream's subjects.")
@click.option("--type", "types", multiple=True, help="Only events of this type, such as 'order.*'.")
@click.option("--source", "sources", multiple=True, help="Only events of this source.")
@click.option("--receiver", "receivers", multiple=True, help="Only events through this receiver.")
@click.option("--ordered", is_flag=True, help="The first failure stops delivery, until it is delivered or skipped.")
@click.option(
    "--start", default="now", show_default=True, metavar="beginning|now|SEQUENCE", help="The first event to deliver."
)
@click.option(
    "--max-events",
    type=click.IntRange(1, checked.MOST_EVENTS),
    default=1,
    show_default=True,
    help="The most events of one request.",
)
@click.option("--format", "form", type=_FORMATS, default=Format.STANDARD.value, show_default=True)
@click.option("--ed25519", is_flag=True, help="Sign with ed25519, and print the public key instead of the secret.")
def create(workspace: str | None, **values: Any) -> None:
    """Create a destination. For a webhook, print only the secret to standard output. It is shown only once.

    --type, --source and --receiver may be given several times. At the store, this command does not know the server's
    settings: a URL in a private network needs its --webhook-allow, and a stream its --nats-url.
    """

    async def work() -> None:
        check_output()
        async with within(values, workspace) as api:
            answer = await api.call("DestinationService/CreateDestination", {"destination": _new(values)})
            await _show_secret(api, answer["destination"])
            at_store = isinstance(api, Direct)
        if at_store:
            _note_blocked(values["url"])

    if (values["url"] is None) == (values["stream"] is None):
        raise click.UsageError("give --url or --stream")
    _check_kind("--url" if values["stream"] is None else "--stream")
    run(work())


_OF_ONE_KIND = {"subject_prefix": "--stream", "max_events": "--url", "form": "--url", "ed25519": "--url"}
"""Options that only one kind of destination has, by the option that says the kind."""


def _check_kind(kind: str) -> None:
    """Raise `click.UsageError` for an option that would be ignored."""
    context = click.get_current_context()
    for parameter in context.command.params:
        needed = _OF_ONE_KIND.get(str(parameter.name), kind)
        if needed != kind and context.get_parameter_source(str(parameter.name)) is ParameterSource.COMMANDLINE:
            raise click.UsageError(f"{parameter.opts[0]} needs {needed}")


async def _show_secret(api: Api, made: dict[str, Any]) -> None:
    """Print the secret of a new webhook. If it cannot be shown, nobody can ever verify with it: delete the webhook."""
    secret = made.get("webhook", {}).get("secret", "")
    try:
        show(*filter(None, [secret]))
    except (SetupError, SystemExit):
        await api.call("DestinationService/DeleteDestination", {"id": made["id"]})
        raise


def _new(values: dict[str, Any]) -> dict[str, Any]:
    """Return the destination to create."""
    made = {
        "name": values["name"],
        "filter": {name: list(values[name]) for name in ("types", "sources", "receivers")},
        # A stream is always ordered; absent means that for a stream, and parallel for a webhook.
        "ordering": Ordering.ORDERED.value if values["ordered"] else "",
        "start": values["start"],
    }
    if values["url"] is None:
        return made | {"jetstream": {"stream": values["stream"], "subject_prefix": values["subject_prefix"] or ""}}
    webhook = {"url": values["url"], "max_events": values["max_events"], "format": values["form"]}
    return made | {"webhook": webhook | ({"signature": "ed25519"} if values["ed25519"] else {})}


def _note_blocked(url: str | None) -> None:
    """Say on standard error that a webhook's address is in a network that the server must allow."""
    try:
        if url is not None:
            check_url(url, Networks())
    except ValueError as error:
        click.echo(f"headgate: note: {error}. Without it on the server, each attempt fails.", err=True)


@destinations.command("list")
@_of_a_workspace
def list_(workspace: str | None, **values: Any) -> None:
    """List destinations: id, name, state, ordering, cursor, lag, set-aside events, target, last error."""

    async def work() -> None:
        async with within(values, workspace) as api:
            async for page in pages(api, "DestinationService/ListDestinations", {"page_size": _PAGE}):
                show(*map(_line, page["destinations"]))

    run(work())


@destinations.command("pause")
@_of_a_workspace
@click.argument("destination", metavar="NAME")
def pause(workspace: str | None, destination: str, **values: Any) -> None:
    """Stop delivery to the destination with this NAME or id. Its cursor stays."""
    _change(workspace, destination, values, "PauseDestination")


@destinations.command("resume")
@_of_a_workspace
@click.argument("destination", metavar="NAME")
def resume(workspace: str | None, destination: str, **values: Any) -> None:
    """Start delivery again at the cursor, also of a disabled destination."""
    _change(workspace, destination, values, "ResumeDestination")


@destinations.command("delete")
@_of_a_workspace
@click.argument("destination", metavar="NAME")
def delete(workspace: str | None, destination: str, **values: Any) -> None:
    """Remove a destination and its failures. The events stay."""

    async def work() -> None:
        async with within(values, workspace) as api:
            await api.call("DestinationService/DeleteDestination", {"id": await _id_of(api, destination)})

    run(work())


@destinations.command("replay")
@_of_a_workspace
@click.argument("destination", metavar="NAME")
@click.option("--set-aside", is_flag=True, help="The events that are set aside.")
@click.option("--after", type=_SEQUENCE, metavar="SEQUENCE", help="The events after this sequence.")
@click.option("--from", "from_", metavar="TIME", help="The events stored at this time or later: 2024-01-15T10:30:00Z.")
def replay(
    workspace: str | None, destination: str, set_aside: bool, after: int | None, from_: str | None, **values: Any
) -> None:
    """Deliver events again, up to the cursor. The cursor does not move."""
    if (set_aside, after is not None, from_ is not None).count(True) != 1:
        raise click.UsageError("give exactly one of --set-aside, --after and --from")
    _change(workspace, destination, values, "ReplayDestination", lambda: _what(after, from_))


def _what(after: int | None, from_: str | None) -> dict[str, Any]:
    """Return the events to deliver again. Raises `SetupError`."""
    if after is not None:
        return {"after_sequence": after}
    since = time_of(from_, "--from")
    return {"set_aside": True} if since is None else {"from": timestamps.format(since)}


@destinations.command("failures")
@_of_a_workspace
@click.argument("destination", metavar="NAME")
@click.option("--retry", type=_SEQUENCE, metavar="SEQUENCE", help="Try this event again at once.")
@click.option("--skip", type=_SEQUENCE, metavar="SEQUENCE", help="Skip this event.")
def failures(workspace: str | None, destination: str, retry: int | None, skip: int | None, **values: Any) -> None:
    """List failed events: sequence, state, attempts, time of the next attempt, the last answer."""

    async def work() -> None:
        async with within(values, workspace) as api:
            destination_id = await _id_of(api, destination)
            if (sequence := skip if retry is None else retry) is None:
                request = {"id": destination_id, "page_size": _PAGE}
                async for page in pages(api, "DestinationService/ListFailures", request):
                    show(*map(_failure_line, page["failures"]))
                return
            method = "SkipFailure" if retry is None else "RetryFailure"
            answer = await api.call(f"DestinationService/{method}", {"id": destination_id, "sequence": sequence})
        show(_failure_line(answer["failure"]))

    if retry is not None and skip is not None:
        raise click.UsageError("give --retry or --skip")
    run(work())


def _change(
    workspace: str | None,
    destination: str,
    values: dict[str, Any],
    method: str,
    more: Callable[[], dict[str, Any]] = dict,
) -> None:
    """Call a method that changes a destination, and print the destination."""

    async def work() -> None:
        request = more()
        async with within(values, workspace) as api:
            request["id"] = await _id_of(api, destination)
            answer = await api.call(f"DestinationService/{method}", request)
        show(_line(answer["destination"]))

    run(work())


async def _id_of(api: Api, name: str) -> str:
    """Return the id of a destination. Raises `NotFound`."""
    if name.startswith(PREFIX):
        return name
    async for page in pages(api, "DestinationService/ListDestinations", {"page_size": _PAGE}):
        for one in page["destinations"]:
            if one["name"] == name:
                return str(one["id"])
    raise NotFound(f"There is no destination {name!r} in this workspace.")


def _line(one: dict[str, Any]) -> str:
    why = f" ({one['state_reason']})" if one.get("state_reason") else ""
    parts = (
        one["id"],
        one["name"],
        f"{one['state']}{why}",
        one["ordering"],
        f"cursor {one['cursor']}",
        f"{one['lag_events']} behind",
        f"{one['set_aside']} set aside",
        _target(one),
    )
    last = f"  last error: {one['last_error']}" if one.get("last_error") and "failing_since" in one else ""
    return printable("  ".join(parts) + last)


def _target(one: dict[str, Any]) -> str:
    if "webhook" in one:
        return str(one["webhook"]["url"])
    return f"{one['jetstream']['stream']} {one['jetstream']['subject_prefix']}.>"


def _failure_line(failure: dict[str, Any]) -> str:
    due = f"  next {failure['next_attempt_at']}" if "next_attempt_at" in failure else ""
    status = str(failure.get("status", "no answer"))
    parts = f"{failure['sequence']}  {failure['state']}  {failure['attempts']} attempts{due}  {status}  "
    return printable(parts + failure["error"])
