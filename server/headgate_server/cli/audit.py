"""`headgate audit`: the administrative acts."""

from collections.abc import Iterator, Sequence
from typing import Any

import click
import orjson

from headgate_server.cli.events import pages_of_events, times_of
from headgate_server.cli.running import check_output, run, show
from headgate_server.cli.tables import table
from headgate_server.cli.target import options_of_target, within
from headgate_server.core.audit import RESERVED
from headgate_server.core.errors import NotFound

_MOST_SHOWN = 100
"""Characters of a change in a table. JSON has all of it."""


@click.command()
@options_of_target
@click.option("--workspace", default="", help="Only the acts on this workspace.")
@click.option("--type", "type_", default="", help="Only acts of this type, such as key.revoked or 'key.*'.")
@click.option("--from", "from_", metavar="TIME", help="Only acts at this time or later: 2024-01-15T10:30:00Z.")
@click.option("--to", metavar="TIME", help="Only acts before this time.")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="The most acts, the newest.")
@click.option("--json", "json_", is_flag=True, help="Print the events as JSON, one a line.")
def audit(json_: bool, limit: int, workspace: str, **values: Any) -> None:
    """Show administrative acts: when, who, what, on which workspace. The newest come last.

    An act is an event in the ledger of the workspace _headgate; `headgate ledger verify --workspace _headgate` checks
    that none was changed or removed.
    """

    async def work() -> None:
        given = {"type": values["type_"], "subject": workspace}
        request = {name: value for name, value in given.items() if value} | times_of(values)
        check_output()
        found: list[str] = []
        try:
            async with within(values, RESERVED) as api:
                async for lines in pages_of_events(api, {"newest_first": True} | request, limit):
                    found.extend(lines)
        except NotFound:
            pass  # there was no act yet
        found.reverse()
        show(*(found if json_ else _table(found)))

    run(work())


def _table(lines: Sequence[str]) -> Iterator[str]:
    rows = [_row(orjson.loads(line)) for line in lines]
    yield from table(("TIME", "WHO", "ACT", "WORKSPACE", "TARGET", "CHANGE"), rows)


def _row(event: dict[str, Any]) -> Sequence[str]:
    data = event.get("data", {})
    actor = data.get("actor", {})
    who = " ".join(str(actor[name]) for name in ("kind", "id") if name in actor)
    names = (str(data.get(name, "")) for name in ("workspace", "target"))
    return event["created_at"], who, event["type"], *names, _change(data)


def _change(data: dict[str, Any]) -> str:
    """Return what changed, in short: `name: old → new`."""
    before, after = data.get("before") or {}, data.get("after") or {}
    if not before or not after:
        return ""
    names = [name for name in {**before, **after} if before.get(name) != after.get(name)]
    text = ", ".join(f"{name}: {_short(before.get(name))} → {_short(after.get(name))}" for name in names)
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 1] + "…"


def _short(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()
