"""`headgate destinations`: create, list, change and replay destinations."""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from ipaddress import ip_network
from typing import Any, TypeVar

import click

from headgate_server.access import admin
from headgate_server.cli.options import options
from headgate_server.cli.running import check_output, run, show
from headgate_server.config import StoreConfig
from headgate_server.core import timestamps
from headgate_server.core.destinations import PREFIX, Failure, Format, Ordering, State, Status, Target, Webhook
from headgate_server.core.errors import SetupError
from headgate_server.core.types import WorkspaceId
from headgate_server.delivery import checked, manage
from headgate_server.delivery.networks import Networks
from headgate_server.delivery.url import check_url
from headgate_server.process.setting import build
from headgate_server.store import Destinations

_PAGE = 500

_ANYWHERE = Networks((ip_network("0.0.0.0/0"), ip_network("::/0")))
"""All networks, because only the server has the setting. In a network that it does not allow, each attempt fails with
an error that says so.
"""

_FORMATS = click.Choice([form.value for form in Format])

_Command = TypeVar("_Command", bound=Callable[..., Any])


@click.group()
def destinations() -> None:
    """Manage the destinations of a workspace's events."""


def _of_a_workspace(command: _Command) -> _Command:
    command = click.option("--workspace", required=True, help="The workspace of the destinations.")(command)
    return options(StoreConfig)(command)


@destinations.command("create")
@_of_a_workspace
@click.option("--name", required=True, help="A name, unique in the workspace.")
@click.option("--url", help="The URL that events are posted to.")
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
def create(workspace: str, **values: Any) -> None:
    """Create a destination. For a webhook, print only the secret to standard output. It is shown only once.

    --type, --source and --receiver may be given several times. This command does not know the server's settings: a URL
    in a private network needs its --webhook-allow, and a stream its --nats-url.
    """

    async def work() -> None:
        settings = manage.DestinationSettings(
            name=checked.name_of(values["name"]),
            target=_target(values),
            filter=checked.filter_of(values["types"], values["sources"], values["receivers"]),
            ordering=Ordering.ORDERED if values["ordered"] else Ordering.PARALLEL,
            start=checked.start_of(values["start"]),
        )
        check_output()
        async with _opened(values, workspace) as (topic, workspace_id):
            shown = await manage.create(topic, workspace_id, settings)
            try:
                show(*filter(None, [shown.key]))
            except (SetupError, SystemExit):
                # The secret was not shown.
                await topic.delete(workspace_id, shown.status.destination.id)
                raise
        _note_blocked(values["url"])

    if (values["url"] is None) == (values["stream"] is None):
        raise click.UsageError("give --url or --stream")
    run(work())


def _note_blocked(url: str | None) -> None:
    """Say on standard error that a webhook's address is in a network that the server must allow."""
    try:
        if url is not None:
            check_url(url, Networks())
    except ValueError as error:
        click.echo(f"headgate: note: {error}. Without it on the server, each attempt fails.", err=True)


def _target(values: dict[str, Any]) -> Target:
    if values["url"] is None:
        return checked.jetstream_of(values["stream"], values["subject_prefix"] or "")
    return checked.webhook_of(
        values["url"],
        _ANYWHERE,
        max_events=values["max_events"],
        form=values["form"],
        signature="ed25519" if values["ed25519"] else "",
    )


@destinations.command("list")
@_of_a_workspace
def list_(workspace: str, **values: Any) -> None:
    """List destinations: id, name, state, ordering, cursor, lag, set-aside events, target, last error."""

    async def work() -> None:
        async with _opened(values, workspace) as (topic, workspace_id):
            last = ""
            while page := await topic.list(workspace_id, _PAGE, last):
                show(*map(_line, page))
                last = page[-1].destination.id

    run(work())


@destinations.command("pause")
@_of_a_workspace
@click.argument("destination", metavar="NAME")
def pause(workspace: str, destination: str, **values: Any) -> None:
    """Stop delivery to the destination with this NAME or id. Its cursor stays."""
    _set_state(workspace, destination, values, State.PAUSED)


@destinations.command("resume")
@_of_a_workspace
@click.argument("destination", metavar="NAME")
def resume(workspace: str, destination: str, **values: Any) -> None:
    """Start delivery again at the cursor, also of a disabled destination."""
    _set_state(workspace, destination, values, State.ACTIVE)


@destinations.command("delete")
@_of_a_workspace
@click.argument("destination", metavar="NAME")
def delete(workspace: str, destination: str, **values: Any) -> None:
    """Remove a destination and its failures. The events stay."""

    async def work() -> None:
        async with _opened(values, workspace) as (topic, workspace_id):
            await topic.delete(workspace_id, await _id_of(topic, workspace_id, destination))

    run(work())


@destinations.command("replay")
@_of_a_workspace
@click.argument("destination", metavar="NAME")
@click.option("--set-aside", is_flag=True, help="The events that are set aside.")
@click.option("--after", type=int, metavar="SEQUENCE", help="The events after this sequence.")
@click.option("--from", "from_", metavar="TIME", help="The events stored at this time or later: 2024-01-15T10:30:00Z.")
def replay(
    workspace: str, destination: str, set_aside: bool, after: int | None, from_: str | None, **values: Any
) -> None:
    """Deliver events again, up to the cursor. The cursor does not move."""

    async def work() -> None:
        since = None if from_ is None else _time(from_)
        async with _opened(values, workspace) as (topic, workspace_id):
            destination_id = await _id_of(topic, workspace_id, destination)
            status = await manage.replay(
                topic, workspace_id, destination_id, set_aside=set_aside, after=after, since=since
            )
        show(_line(status))

    if (set_aside, after is not None, from_ is not None).count(True) != 1:
        raise click.UsageError("give exactly one of --set-aside, --after and --from")
    run(work())


@destinations.command("failures")
@_of_a_workspace
@click.argument("destination", metavar="NAME")
@click.option("--retry", type=int, metavar="SEQUENCE", help="Try this event again at once.")
@click.option("--skip", type=int, metavar="SEQUENCE", help="Skip this event.")
def failures(workspace: str, destination: str, retry: int | None, skip: int | None, **values: Any) -> None:
    """List failed events: sequence, state, attempts, time of the next attempt, the last answer."""

    async def work() -> None:
        async with _opened(values, workspace) as (topic, workspace_id):
            destination_id = await _id_of(topic, workspace_id, destination)
            if retry is not None:
                show(_failure_line(await topic.retry(workspace_id, destination_id, retry)))
            elif skip is not None:
                show(_failure_line(await topic.skip(workspace_id, destination_id, skip)))
            else:
                await _print_failures(topic, workspace_id, destination_id)

    if retry is not None and skip is not None:
        raise click.UsageError("give --retry or --skip")
    run(work())


@contextlib.asynccontextmanager
async def _opened(values: dict[str, Any], workspace: str) -> AsyncIterator[tuple[Destinations, WorkspaceId]]:
    """Open the store for a block. Raises `NotFound` if there is no such workspace."""
    async with admin.opened(build(StoreConfig, values).location) as store:
        row = await admin.find_workspace(store.directory, workspace)
        yield store.destinations, row.id


async def _id_of(topic: Destinations, workspace_id: WorkspaceId, name: str) -> str:
    return name if name.startswith(PREFIX) else await topic.find(workspace_id, name)


def _set_state(workspace: str, destination: str, values: dict[str, Any], state: State) -> None:
    async def work() -> None:
        async with _opened(values, workspace) as (topic, workspace_id):
            status = await topic.set_state(workspace_id, await _id_of(topic, workspace_id, destination), state)
        show(_line(status))

    run(work())


async def _print_failures(topic: Destinations, workspace_id: WorkspaceId, destination_id: str) -> None:
    last = 0
    while page := await topic.failures(workspace_id, destination_id, _PAGE, last):
        show(*map(_failure_line, page))
        last = page[-1].sequence


def _line(status: Status) -> str:
    one = status.destination
    parts: Sequence[str] = (
        one.id,
        one.name,
        one.state if not one.why else f"{one.state} ({one.why})",
        one.ordering,
        f"cursor {one.cursor.sequence}",
        f"{status.lag_events} behind",
        f"{status.set_aside} set aside",
        one.target.url if isinstance(one.target, Webhook) else f"{one.target.stream} {one.target.subject_prefix}.>",
    )
    last = f"  last error: {one.last_error}" if one.last_error and one.failing_since is not None else ""
    return "  ".join(parts) + last


def _failure_line(failure: Failure) -> str:
    due = "" if failure.next_attempt_at is None else f"  next {timestamps.format(failure.next_attempt_at)}"
    status = "no answer" if failure.status is None else str(failure.status)
    return f"{failure.sequence}  {failure.state}  {failure.attempts} attempts{due}  {status}  {failure.error}"


def _time(text: str) -> int:
    try:
        return timestamps.parse(text)[0]
    except ValueError as error:
        raise SetupError(f"--from: {error}") from None
