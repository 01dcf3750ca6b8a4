"""Work that must not fail what it stands beside."""

import contextlib

import structlog

log = structlog.get_logger(__name__)


class aside:  # noqa: N801 - used as contextlib.suppress is
    """A block whose errors go to the log and nowhere else: for whatever counts and tells of an event that is stored.

    Whatever raises between the commit and the answer would tell the caller of a failure, and make it send the event
    again. A class, since a generator would cost three times as much on every call.
    """

    __slots__ = ("_what",)

    def __init__(self, what: str):
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if error is None or not isinstance(error, Exception):
            return False
        with contextlib.suppress(Exception):  # it may be the log itself that failed
            log.error("aside_failed", what=self._what, exc_info=error)
        return True
