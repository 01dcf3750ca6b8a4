"""What the bridge alone may say, and what may be said only once."""

import hmac
from collections.abc import Iterable, Mapping

from headgate_server.core.errors import PermissionDenied
from headgate_server.core.reasons import Reason
from headgate_server.rpc.pipeline.call import REQUEST_KEY, Call, Handler
from headgate_server.rpc.pipeline.method import AnyMethod

BRIDGE_KEY = "x-headgate-bridge"
PUBLIC = "1"
"""The token of the shipped envoy.yaml. It tells the bridge from others' proxies; a secret one also keeps out whoever
reaches the server's own port.
"""
_BRIDGES = ("x-envoy-", "x-headgate-")
_CREDENTIALS = frozenset({"authorization", "x-api-key"})


def token_of(text: str) -> str:
    """Return the token that was given. Raises `ValueError` for what no header can hold."""
    if not text or not all("!" <= character <= "~" for character in text):
        raise ValueError("the bridge's token must be letters, digits and signs of ASCII, without spaces")
    return text


class Trust:
    """Leaves the bridge's metadata to the calls that bring its token; other callers' metadata of those names is
    dropped.

    Two interceptors: what stands between them must know already whether a call is bridged, and sees the refusal.
    """

    def __init__(self, token: str):
        self._token = token.encode()

    def drop(self, method: AnyMethod, handler: Handler) -> Handler:
        """Drop what is not the bridge's. Another token than ours stays, for `refuse`."""

        async def dropped(call: Call) -> bytes:
            given = call.metadata.pop(BRIDGE_KEY, None)
            if given is None or not self._is_ours(given):
                call.metadata = _without_bridges(call.metadata)
                if given is not None:
                    call.metadata[BRIDGE_KEY] = given
            return await handler(call)

        return dropped

    def refuse(self, method: AnyMethod, handler: Handler) -> Handler:
        """Raise `PermissionDenied` for another token: no HTTP client could read an answer in protobuf."""

        async def refused(call: Call) -> bytes:
            if BRIDGE_KEY in call.metadata:
                raise PermissionDenied(
                    "The bridge's token is not the server's: HEADGATE_BRIDGE_TOKEN must be the same for both.",
                    reason=Reason.UNKNOWN_BRIDGE,
                )
            return await handler(call)

        return refused

    def _is_ours(self, given: str | bytes) -> bool:
        return isinstance(given, str) and hmac.compare_digest(given.encode(), self._token)


def _without_bridges(metadata: Mapping[str, str | bytes]) -> dict[str, str | bytes]:
    return {name: value for name, value in metadata.items() if not name.startswith(_BRIDGES)}


def repeated(metadata: Iterable[tuple[str, str | bytes]]) -> frozenset[str]:
    """Return the names that were sent more than once and may not be: a request key at all, a credential with different
    values.
    """
    found = set()
    values: dict[str, str | bytes] = {}
    for name, value in metadata:
        if name in values and (name == REQUEST_KEY or (name in _CREDENTIALS and values[name] != value)):
            found.add(name)
        values[name] = value
    return frozenset(found)
