"""Checks metadata that only the bridge may send, and headers that may be sent only once."""

import hmac
from collections.abc import Iterable, Mapping

from headgate_server.core.errors import PermissionDenied
from headgate_server.core.reasons import Reason
from headgate_server.rpc.pipeline.call import REQUEST_KEY, WORKSPACE_KEY, Call, Handler
from headgate_server.rpc.pipeline.method import AnyMethod

BRIDGE_KEY = "x-headgate-bridge"
PUBLIC = "1"
"""The token of the shipped envoy.yaml. It distinguishes the bridge from other proxies. A secret token also keeps out
clients that can reach the server's own port.
"""
_BRIDGES = ("x-envoy-", "x-headgate-", "x-forwarded-client-cert")
"""The last one is what proxies say of a client's certificate. Nothing here reads it, so that nobody can claim one."""
_CREDENTIALS = frozenset({"authorization", "x-api-key", WORKSPACE_KEY})


def token_of(text: str) -> str:
    """Return the token if a header can contain it. Raises `ValueError` if not."""
    if not text or not all("!" <= character <= "~" for character in text):
        raise ValueError("the bridge's token must be printable ASCII characters without spaces")
    return text


class Trust:
    """Keeps the bridge's metadata in calls that have the bridge's token. In other calls metadata of those names is
    dropped.

    There are two interceptors. The parts between them need to know whether a call is bridged, and see the refusal.
    """

    def __init__(self, token: str):
        self._token = token.encode()

    def drop(self, method: AnyMethod, handler: Handler) -> Handler:
        """Drop the bridge's metadata if its token is missing or wrong. A wrong token stays, for `refuse`."""

        async def dropped(call: Call) -> bytes:
            token = call.metadata.pop(BRIDGE_KEY, None)
            if token is None or not self._is_ours(token):
                call.metadata = _without_bridges(call.metadata)
                if token is not None:
                    call.metadata[BRIDGE_KEY] = token
            return await handler(call)

        return dropped

    def refuse(self, method: AnyMethod, handler: Handler) -> Handler:
        """Raise `PermissionDenied` for a wrong token. Without it an HTTP client would get an answer in protobuf."""

        async def refused(call: Call) -> bytes:
            if BRIDGE_KEY in call.metadata:
                raise PermissionDenied(
                    "The bridge's token differs from the server's: HEADGATE_BRIDGE_TOKEN must be the same for both.",
                    reason=Reason.UNKNOWN_BRIDGE,
                )
            return await handler(call)

        return refused

    def _is_ours(self, token: str | bytes) -> bool:
        return isinstance(token, str) and hmac.compare_digest(token.encode(), self._token)


def _without_bridges(metadata: Mapping[str, str | bytes]) -> dict[str, str | bytes]:
    return {name: value for name, value in metadata.items() if not name.startswith(_BRIDGES)}


def repeated(metadata: Iterable[tuple[str, str | bytes]]) -> frozenset[str]:
    """Return the names that were sent more than once although only one is allowed. That is a request key with any
    values, and a credential, or the workspace, with different values.
    """
    found = set()
    values: dict[str, str | bytes] = {}
    for name, value in metadata:
        if name in values and (name == REQUEST_KEY or (name in _CREDENTIALS and values[name] != value)):
            found.add(name)
        values[name] = value
    return frozenset(found)
