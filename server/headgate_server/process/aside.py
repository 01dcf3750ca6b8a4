"""Side work whose errors must not fail the main work."""

import contextlib

import structlog

log = structlog.get_logger(__name__)


class aside:  # noqa: N801 - used as contextlib.suppress is
    """A block whose errors go only to the log: for counting and logging after an event is stored.

    An error between the commit and the answer would tell the caller of a failure, and the caller would send the event
    again. It is a class, because a generator would cost three times as much on every call.
    """

    __slots__ = ("_what",)

    def __init__(self, what: str):
        self._what = what

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        if error is None or not isinstance(error, Exception):
            return False
        with contextlib.suppress(Exception):  # the log itself may be the cause
            log.error("aside_failed", what=self._what, exc_info=error)
        return True
