"""The identities and request keys that an append looks up for a group of submissions, in either dialect."""

from collections.abc import Iterable
from hashlib import sha256

from headgate_server.core.model import Draft, Submission
from headgate_server.core.types import Dedupe


def identities(group: Iterable[Submission]) -> list[Dedupe]:
    """Return the identities of a group's drafts, each once, in the order of the index."""
    claimed = {slot.dedupe for submission in group for slot in submission.slots if isinstance(slot, Draft)}
    return sorted(dedupe for dedupe in claimed if dedupe is not None)


def request_keys(group: Iterable[Submission]) -> set[tuple[str, str]]:
    """Return the (scope, key) of the group's requests, each once."""
    return {(request.scope, request.key) for submission in group if (request := submission.request_key) is not None}


def answer_key(key: str) -> bytes:
    """Return the 16 bytes that represent a request key in the table of answers."""
    return sha256(key.encode()).digest()[:16]
