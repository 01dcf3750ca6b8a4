"""The headers that a workspace adds to the requests of its webhook, such as `Authorization`. Pure."""

import re
from collections.abc import Mapping

MOST_HEADERS = 20
LONGEST_NAME = 100
LONGEST_VALUE = 4096
"""Most servers refuse more than 8 to 16 KiB of headers, or more than 100 headers."""

_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+\-.^_`|~]+", re.ASCII)
_VALUE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?", re.ASCII)

_OURS = {
    "host",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "expect",
    "accept-encoding",
    "user-agent",
}
"""Headers that decide how the request is framed, where it goes, or who sends it."""
_OUR_BEGINNINGS = ("webhook-", "content-", "proxy-", ":")


def check_headers(headers: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return the headers for a request.

    Raises `ValueError` with a sentence about the fault. It names the header. It never quotes the value, which is
    often a secret.
    """
    if len(headers) > MOST_HEADERS:
        raise ValueError(f"there are more than {MOST_HEADERS} extra headers")
    seen = set()
    for name, value in headers.items():
        if len(name) > LONGEST_NAME or not _NAME.fullmatch(name):
            raise ValueError(f"{name[:LONGEST_NAME]!r} is not a header name")
        lower = name.lower()
        if lower in _OURS or lower.startswith(_OUR_BEGINNINGS):
            raise ValueError(f"the header {name} is set by the service")
        if lower in seen:
            raise ValueError(f"the header {name} is given twice")
        if len(value) > LONGEST_VALUE or not _VALUE.fullmatch(value):
            raise ValueError(
                f"the value of the header {name} is not 1 to {LONGEST_VALUE} printable ASCII characters, without a "
                "space at its ends"
            )
        seen.add(lower)
    return list(headers.items())
