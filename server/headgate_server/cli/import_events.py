"""`headgate import`: send the events of a file."""

import asyncio
import contextlib
import sys
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import click
import orjson
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from headgate_client import AsyncClient
from headgate_server.cli.importing.batches import Batch, batches
from headgate_server.cli.importing.columns import Columns, pairs_of, types_of
from headgate_server.cli.importing.records import Record, Rows, json_lines
from headgate_server.cli.importing.rejects import Rejects
from headgate_server.cli.importing.sending import Import, Sending, Summary
from headgate_server.cli.importing.source import Source
from headgate_server.cli.importing.state import State, StateFile, state_path
from headgate_server.cli.running import check_output, run, show
from headgate_server.cli.target import certificate_options, certificates_of, key_of
from headgate_server.core.errors import SetupError

_FORMATS = {".csv": "csv", ".tsv": "csv"}
_TIMEOUT = 600.0
"""Seconds for which a batch is tried again: a restart of the service does not end an import."""
_ATTEMPT_TIMEOUT = 60.0


@click.command("import")
@click.argument("file")
@click.option(
    "--url",
    envvar="HEADGATE_URL",
    default="127.0.0.1:8080",
    show_default=True,
    show_envvar=True,
    help="The service: HOST:PORT, https://HOST or http://HOST.",
)
@click.option("--key", envvar="HEADGATE_KEY", show_envvar=True, help="An API key with the scope events:write.")
@certificate_options
@click.option(
    "--format",
    "format_",
    type=click.Choice(["ndjson", "csv"]),
    help="By default csv for files named .csv or .tsv, also with .gz; ndjson for all others.",
)
@click.option("--encoding", default="utf-8", show_default=True, help="The file's encoding, such as cp1252 or utf-16.")
@click.option("--delimiter", help="What separates the cells of CSV. By default a comma; a tab for files named .tsv.")
@click.option("--type", "type_", help="The type of events that have none themselves.")
@click.option("--source", help="The source of events that have none themselves.")
@click.option(
    "--map",
    "maps",
    metavar="FIELD=COLUMN",
    multiple=True,
    help="The column that is this field of the event. May be repeated.",
)
@click.option(
    "--data-columns",
    metavar="A,B",
    help="The columns that are the event's data. By default all that are no other field.",
)
@click.option(
    "--schema",
    metavar="FILE",
    help="A JSON Schema of the data, for the types of CSV's columns. Without it they are texts.",
)
@click.option(
    "--rejects",
    metavar="FILE",
    help="Write what is not stored to this file: a JSON object for each, with line and reason.",
)
@click.option("--name", help="Names the import, for the keys of events without a key. By default the content of FILE.")
@click.option(
    "--batch-size",
    type=click.IntRange(1, 100_000),
    default=500,
    show_default=True,
    help="The most events of a request.",
)
@click.option("--dry-run", is_flag=True, help="Check everything, and send nothing.")
def import_events(file: str, **values: Any) -> None:
    """Send the events of FILE, or of standard input if it is '-': one JSON object a line, or CSV. It may be gzip.

    Each event is stored once, also if the import is killed: the same command continues where it stopped. Exits
    with 1 if an event was not stored.
    """
    check_output()
    with contextlib.ExitStack() as stack:
        summary = run(_import(stack, file, values))
    show(_told(summary, dry=values["dry_run"], rejects=values["rejects"]))
    if summary.refused:
        sys.exit(1)


async def _import(stack: contextlib.ExitStack, file: str, values: dict[str, Any]) -> Summary:
    _check_texts(values)
    if not values["dry_run"]:
        key_of(values["key"])
    source = Source(file, values["encoding"])
    stack.callback(source.close)
    try:
        return await _import_from(stack, source, file, values)
    finally:
        source.stop()


async def _import_from(stack: contextlib.ExitStack, source: Source, file: str, values: dict[str, Any]) -> Summary:
    state, kept = _state(stack, source, values)
    _check_rejects(values, source.path)
    rejects = Rejects(Path(values["rejects"]) if values["rejects"] else None, state.rejects)
    stack.callback(rejects.close)
    # It may wait for the first row, and Ctrl-C ends a wait on a thread.
    records, event_of = await asyncio.to_thread(_reading, source, file, values, state)
    prefix = _prefix(values["name"], state)
    told = stack.enter_context(_progress(source, state))
    save: Callable[[State], None] = kept.save if kept is not None else lambda state: None
    work = batches(records, event_of, prefix, values["batch_size"])
    if values["dry_run"]:
        return await Import(None, rejects, state, save, told).run(work)
    save(state)
    summary = await _send(Import(None, rejects, state, save, told), work, values, keyed=prefix is not None)
    if kept is not None:
        kept.remove()
    return summary


async def _send(importing: Import, work: Iterator[Batch], values: dict[str, Any], *, keyed: bool) -> Summary:
    try:
        ca, client_cert, client_key = certificates_of(values)
        client = AsyncClient(
            values["url"],
            api_key=values["key"],
            timeout=_TIMEOUT,
            attempt_timeout=_ATTEMPT_TIMEOUT,
            ca=ca,
            client_cert=client_cert,
            client_key=client_key,
            plaintext=True if values["service_plaintext"] else None,
        )
    except ValueError as error:
        raise SetupError(str(error)) from error
    try:
        importing.send = Sending(client, keyed=keyed, place=lambda: importing.state.place)
        return await importing.run(work)
    finally:
        await client.close()


_TEXTS = {"type_": "--type", "source": "--source", "name": "--name", "maps": "--map", "data_columns": "--data-columns"}
_TEXTS |= {"delimiter": "--delimiter", "url": "--url", "key": "--key"}
"""Options that are texts, not names of files."""


def _check_texts(values: dict[str, Any]) -> None:
    """Raise `SetupError` if an option is not UTF-8: no event and no request could have it."""
    for name, flag in _TEXTS.items():
        try:
            "".join(values[name] or ()).encode()
        except UnicodeEncodeError:
            raise SetupError(f"{flag} is not UTF-8") from None


def _check_rejects(values: dict[str, Any], path: Path | None) -> None:
    """Raise `SetupError` if the file of rejects would take the place of a file that the import reads."""
    if not values["rejects"]:
        return
    rejects = Path(values["rejects"])
    for read in (path, path and state_path(path), values["schema"] and Path(values["schema"])):
        if read and (rejects.resolve() == read.resolve() or _is_same(rejects, read)):
            raise SetupError(f"--rejects {rejects} would overwrite {read}, which the import reads")


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        return False  # one of them does not exist, or cannot be used, which its own opening reports


def _state(stack: contextlib.ExitStack, source: Source, values: dict[str, Any]) -> tuple[State, StateFile | None]:
    """Return the state from which the import continues, and its file. Streams and dry runs have no file."""
    settings = _settings(values)
    if source.path is None or values["dry_run"]:
        return State(digest="", size=0, modified=0, settings=settings), None
    kept = StateFile(source.path)
    stack.callback(kept.close)
    size, modified = _facts(source.path)
    state = kept.load()
    if state is None:
        return State(digest=source.digest(), size=size, modified=modified, settings=settings), kept
    is_same = (state.size, state.modified) == (size, modified) or source.digest() == state.digest
    if is_same and state.settings == settings:
        return state, kept
    if not state.place.lines:  # nothing is stored yet
        return State(digest=source.digest(), size=size, modified=modified, settings=settings), kept
    again = f"remove {kept.path} to begin again: events that are stored are recognized"
    if is_same:
        raise SetupError(f"the import of {source.name} was begun with other options; use the same, or {again}")
    raise SetupError(f"{source.name} was changed since its import began; {again}")


def _facts(path: Path) -> tuple[int, int]:
    facts = path.stat()
    return facts.st_size, facts.st_mtime_ns


def _settings(values: dict[str, Any]) -> str:
    """Return a digest of the options that decide what is sent, and to where."""
    names = ("url", "format_", "encoding", "delimiter", "type_", "source", "maps", "data_columns", "schema", "rejects")
    said = {name: values[name] for name in (*names, "name", "batch_size")}
    for name in ("schema", "rejects"):
        # The name of a file may be no UTF-8.
        said[name] = said[name] and said[name].encode(errors="backslashreplace").decode()
    return sha256(orjson.dumps(said)).hexdigest()


def _prefix(name: str | None, state: State) -> str | None:
    """Return the beginning of the keys of events without a key; None for a stream without a name."""
    if name is not None:
        if not 1 <= len(name) <= 200:
            raise SetupError("--name has 1 to 200 characters")
        return f"import-{name}"
    return f"import-{state.digest[:32]}" if state.digest else None


def _reading(
    source: Source, file: str, values: dict[str, Any], state: State
) -> tuple[Iterator[Record], Callable[[Any], Any]]:
    """Return the records, and what turns one into an event."""
    columns = Columns(
        fields=pairs_of(values["maps"]),
        data=None if values["data_columns"] is None else [name for name in values["data_columns"].split(",") if name],
        constants={name: values[key] for name, key in (("type", "type_"), ("source", "source")) if values[key]},
        types=_types(values["schema"]),
    )
    suffix = Path(file.removesuffix(".gz")).suffix.lower()
    if (values["format_"] or _FORMATS.get(suffix, "ndjson")) == "ndjson":
        if columns.types or values["delimiter"]:
            raise SetupError("--schema and --delimiter are for CSV: JSON has types itself")
        return json_lines(source, state.place), columns.event_of_object
    delimiter = values["delimiter"] or ("\t" if suffix == ".tsv" else ",")
    if len(delimiter) != 1 or delimiter in '"\r\n':
        raise SetupError(f"--delimiter is one character, not {delimiter!r}")
    rows = Rows(source, delimiter)
    return rows.read(state.place), columns.of(rows.columns, source.name).event_of_row


def _types(schema: str | None) -> dict[str, frozenset[str]]:
    if schema is None:
        return {}
    try:
        return types_of(Path(schema).read_bytes(), schema)
    except OSError as error:
        raise SetupError(f"cannot read {schema}: {error.strerror}") from error


@contextlib.contextmanager
def _progress(source: Source, state: State) -> Iterator[Callable[[int], None]]:
    """Show how far the import is on standard error, if that is a terminal. Yield what counts records."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda records: None
        return
    bar = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TaskProgressColumn(show_speed=True),
        DownloadColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
        console=console,
    )
    with bar:
        task = bar.add_task(source.name, total=source.size, rate="")
        start = bar.get_time()
        done = 0

        def told(records: int) -> None:
            nonlocal done
            done += records
            rate = done / max(bar.get_time() - start, 1e-9)
            bar.update(task, completed=source.position, rate=f"{state.counts.total():,} records, {rate:,.0f}/s")

        yield told


def _told(summary: Summary, *, dry: bool, rejects: str | None) -> str:
    """Return the result as one line."""
    counts = ", ".join(f"{count:,} {name}" for name, count in sorted(summary.counts.items())) or "no records"
    rate = f"{summary.records:,} in {summary.seconds:.1f} s, {summary.records / max(summary.seconds, 1e-9):,.0f}/s"
    where = f"; {rejects} says why" if summary.refused and rejects else ""
    return f"{'checked' if dry else 'imported'}: {counts} ({rate}){where}"
