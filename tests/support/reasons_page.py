"""Writes docs/reasons.md from the catalogue: `python -m tests.support.reasons_page`."""

from pathlib import Path

from headgate_server.core.reasons import CATALOGUE, Entry, Reason

PAGE = Path(__file__).parent.parent.parent / "docs" / "reasons.md"

_HEAD = """# Reasons

An error says what went wrong twice: `message` is for people and may change, `reason` is for programs and keeps its
meaning. An error of a whole call has its reason in `details` (`google.rpc.ErrorInfo`, domain `headgate`), an error of
one event in the event's result. New reasons may come: a program treats one that it does not know by the code beside it.

- **codes** are those of a call that failed, a single event's (`Ingest`, `POST /v1/events`) among them. Vendors' paths
  have the status and the body that the vendor documents.
- **event**: it may stand in a batch's results. Then it concerns that event alone, and the call succeeds.
- **retry**: the same request may succeed later. `Retry-After` and `google.rpc.RetryInfo` say when, where that is known.
  Without it the request stays wrong until it is mended.

This page is made from `server/headgate_server/core/reasons.py`; a test holds it to what the code raises.

| reason | meaning | what to do | codes | event | retry |
|---|---|---|---|---|---|
"""


def page() -> str:
    """Return the page."""
    return _HEAD + "".join(map(_row, sorted(CATALOGUE), map(CATALOGUE.__getitem__, sorted(CATALOGUE))))


def _row(reason: Reason, entry: Entry) -> str:
    codes = "<br>".join(f"{answer.grpc}, {answer.http}" for answer in entry.answers)
    marks = " | ".join("yes" if mark else "" for mark in (entry.of_an_event, entry.retry))
    return f"| `{reason}` | {entry.means} | {entry.do} | {codes} | {marks} |\n"


if __name__ == "__main__":
    PAGE.write_text(page())
