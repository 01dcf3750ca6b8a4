"""Writes docs/reasons.md from the catalogue: `python -m tests.support.reasons_page`."""

from pathlib import Path

from headgate_server.core.reasons import CATALOGUE, Entry, Reason

PAGE = Path(__file__).parent.parent.parent / "docs" / "reasons.md"

_HEAD = """# Reasons

An error has a `message` and a `reason`. The message is for people and may change. The reason is for programs and keeps
its meaning. An error of a whole call has its reason in `details` (`google.rpc.ErrorInfo`, domain `headgate`). An error
of one event has it in the event's result. New reasons may be added: a program that does not know a reason goes by the
code.

- **codes**: the codes of a call that failed. A call with a single event (`Ingest`, `POST /v1/events`) is one of these.
  Vendors' paths answer with the status and the body that the vendor documents.
- **event**: the reason can be in a batch's results. Then it concerns that event alone, and the call succeeds.
- **retry**: the same request may succeed later. `Retry-After` and `google.rpc.RetryInfo` say when, if that is known.
  Without this mark the request fails until it is corrected.

This page is generated from `server/headgate_server/core/reasons.py`. A test compares it with what the code raises.

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
