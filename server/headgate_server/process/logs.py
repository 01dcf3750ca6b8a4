"""Structured logs on standard error: one JSON object a line, or lines for a person on a terminal.

A log line costs its caller an append to a queue. A writer's thread renders and writes it (`outlet.py`), so neither a
slow reader of the log nor a full disk delays or fails a call. In a process that serves, `sys.stdout` and `sys.stderr`
are such queues too: library output, warnings and the traceback of a crash take the same way.
"""

import atexit
import json
import logging
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import orjson
import structlog

from headgate_server.process.outlet import STDERR, STDOUT, Outlet, OutletConfig, OutletText

FORMATS = ("json", "console")
LEVELS = ("debug", "info", "warning", "error")

_outlets: list[Outlet] = []


class Record(NamedTuple):
    """One line of the log, before it is rendered."""

    level: str
    time: float
    """Seconds since the epoch."""
    fields: Mapping[str, Any]


def configure(level: str, form: str | None = None, config: OutletConfig | None = None) -> None:
    """Set the logs and the standard streams up for this process, once, at its start.

    `form` is one of `FORMATS`. Without it the log is for a person if standard error is a terminal, and JSON if not.
    """
    config = config or OutletConfig()
    watched = sys.stderr.isatty()
    form = form or ("console" if watched else "json")
    render = _Console(colours=watched) if form == "console" else _rendered
    errors = Outlet(STDERR, render, lambda count: render(_loss(count)), config)
    output = Outlet(STDOUT, str.encode, lambda count: b"", config)
    _outlets[:] = (errors, output)
    sys.stdout = OutletText(output, STDOUT, watched=sys.stdout.isatty(), longest=config.longest_text)
    sys.stderr = OutletText(errors, STDERR, watched=watched, longest=config.longest_text)
    atexit.register(close)
    structlog.configure(
        processors=[_Stamped(config.longest_text)],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, level.upper())),
        logger_factory=lambda *_: _Queue(errors),
        cache_logger_on_first_use=True,
    )
    # Libraries log through the standard library: show only their warnings and errors.
    # grpc prints a header that is not UTF-8 in full, and that may be a caller's key.
    logging.getLogger("grpc._cython.cygrpc").setLevel(logging.CRITICAL)
    logging.captureWarnings(capture=True)
    logging.basicConfig(level=logging.WARNING, handlers=[_Handler(errors, config.longest_text)], force=True)


def line_of(level: str, event: str) -> Callable[[dict[str, Any]], None]:
    """Return a function that logs an event with its fields, a dictionary that it keeps. It is for a line of every call:
    structlog takes twice as long. The level counts that is configured now. Without `configure`, structlog logs it.
    """
    logger = structlog.get_logger().bind()
    if not _outlets:
        write = getattr(logger, level)
        return lambda fields: write(event, **fields)
    if not logger.is_enabled_for(getattr(logging, level.upper())):
        return lambda fields: None
    put = _outlets[0].put

    def put_line(fields: dict[str, Any]) -> None:
        fields["event"] = event
        put(Record(level, time.time(), fields))

    return put_line


def close() -> None:
    """Write the waiting lines, within a bounded time. Lines logged afterwards may be lost."""
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    for outlet in _outlets:
        outlet.close()


def dropped() -> int:
    """Return the number of lines that this process could not write since its start."""
    return sum(outlet.dropped for outlet in _outlets)


class _Queue:
    """structlog's logger: it puts records into the outlet."""

    def __init__(self, outlet: Outlet):
        self._outlet = outlet

    def put(self, record: Record, text: int) -> None:
        self._outlet.put(record, text)

    debug = info = warning = error = critical = put


class _Stamped:
    """structlog's only processor: it records the time and an exception's text, because its frames would keep
    requests alive.
    """

    def __init__(self, longest: int):
        self._longest = longest

    def __call__(self, logger: Any, level: str, fields: MutableMapping[str, Any]) -> tuple[Any, ...]:
        text = 0
        if exc_info := fields.pop("exc_info", None):
            fields["exception"] = exception = _shortened(_traceback(exc_info), self._longest)
            text = len(exception)
        return (Record(level, time.time(), fields), text), {}


class _Handler(logging.Handler):
    """Takes log records of libraries that use the standard library's logging."""

    def __init__(self, outlet: Outlet, longest: int):
        super().__init__()
        self._outlet = outlet
        self._longest = longest

    def emit(self, record: logging.LogRecord) -> None:
        """Put the record with its finished message: its arguments may change later, or be large."""
        try:
            message = record.getMessage()
        except Exception:
            message = str(record.msg)
        fields = {"event": _shortened(message, self._longest), "logger": record.name}
        if record.exc_info:
            fields["exception"] = _shortened(_traceback(record.exc_info), self._longest)
        self._outlet.put(Record(record.levelname.lower(), record.created, fields), sum(map(len, fields.values())))


def _traceback(exc_info: Any) -> str:
    """Return the text of an exception as the standard library prints it: without local variables, and so without a
    caller's key.
    """
    error = exc_info
    if not isinstance(exc_info, BaseException):
        error = exc_info[1] if isinstance(exc_info, tuple) else sys.exc_info()[1]
    try:
        return "" if error is None else "\n".join(_chain_texts(error))
    except Exception:
        return type(error).__name__


_DRIVERS = frozenset(("asyncpg", "sqlalchemy", "pysqlite3", "sqlite3"))
"""The packages whose messages may quote a value that a caller sent. Their codes are logged (`causes.py`)."""


def _chain_texts(error: BaseException) -> Iterator[str]:
    """Yield the texts of an error and of those that caused it, the first cause first."""
    seen: set[int] = set()
    chain: list[BaseException] = []
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        chain.append(current)
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)
    for one in reversed(chain):
        frames = "".join(traceback.format_tb(one.__traceback__))
        package = type(one).__module__.partition(".")[0]
        told = traceback.format_exception_only(one) if package not in _DRIVERS else [f"{_name(one)}: (not logged)"]
        yield f"Traceback (most recent call last):\n{frames}{''.join(told)}".rstrip("\n")


def _name(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}"


def _shortened(text: str, longest: int) -> str:
    """Return a text of at most `longest` characters. The end is kept, because it is more useful than the beginning."""
    return text if len(text) <= longest else "…" + text[-longest:]


def _loss(count: int) -> Record:
    return Record("warning", time.time(), {"event": "log_lines_dropped", "count": count})


def _rendered(entry: Record | str) -> bytes:
    """Return an entry as a line of JSON; printed text stays unchanged."""
    if isinstance(entry, str):
        return entry.encode(errors="backslashreplace")
    fields = _complete(entry)
    try:
        return orjson.dumps(fields, default=repr, option=orjson.OPT_APPEND_NEWLINE)
    except Exception:
        # A lone surrogate, an integer of more than 64 bits, or a name that is not a text.
        return json.dumps({str(name): value for name, value in fields.items()}, default=repr).encode() + b"\n"


def _complete(record: Record) -> dict[str, Any]:
    return {**record.fields, "level": record.level, "timestamp": _time_text(record.time)}


def _time_text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


class _Console:
    """Renders entries for a person, with colours on a terminal."""

    def __init__(self, *, colours: bool) -> None:
        self._console = structlog.dev.ConsoleRenderer(colors=colours)

    def __call__(self, entry: Record | str) -> bytes:
        if isinstance(entry, str):
            return entry.encode(errors="backslashreplace")
        text = self._console(None, entry.level, _complete(entry))
        return f"{text}\n".encode(errors="backslashreplace")
