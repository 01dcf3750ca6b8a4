"""headgate.v1.DocsService: the OpenAPI document, and the reference page that shows it."""

from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from google.api.httpbody_pb2 import HttpBody

from headgate.v1.bridge_view_pb2 import GetOpenApiRequest, GetReferenceRequest, GetReferenceScriptRequest
from headgate_server.core.errors import NotFound, Overloaded
from headgate_server.core.reasons import Reason
from headgate_server.process.setting import setting
from headgate_server.rpc import reference, status
from headgate_server.rpc.pipeline.call import Call
from headgate_server.rpc.pipeline.method import AnyMethod, Method, Public, ServerStream
from headgate_server.rpc.reference import File

SERVICE = "headgate.v1.DocsService"
_MOST_READERS = 16
"""The files that are sent at once. Their readers need no key, so slow ones must not use up the server's calls. A reader
holds some hundred kilobytes; the bridge ends it after a minute.
"""
_ALWAYS = (
    ("cache-control", "no-cache"),  # caches keep the answer, and ask each time whether its tag is still the same
    ("vary", "accept-encoding"),
    ("x-content-type-options", "nosniff"),
    ("referrer-policy", "no-referrer"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class DocsConfig:
    """Whether the API is described to everyone who can reach the service."""

    docs: str = setting(
        "on",
        "docs",
        "Whether /openapi.json and the reference page /docs are served. They need no key.",
        choices=("on", "off"),
    )
    """On: they say nothing that the public source does not say."""


class DocsServicer:
    """Sends the files, each in parts, so that a slow reader holds little memory."""

    def __init__(self, config: DocsConfig):
        self._on = config.docs == "on"
        self._readers = 0

    def methods(self) -> Sequence[AnyMethod]:
        """Return the service's methods; none needs a key."""
        return (
            self._method("GetOpenApi", GetOpenApiRequest, reference.open_api),
            self._method("GetReference", GetReferenceRequest, reference.page),
            self._method("GetReferenceScript", GetReferenceScriptRequest, reference.script),
        )

    def _method(
        self,
        name: str,
        request: type[GetOpenApiRequest | GetReferenceRequest | GetReferenceScriptRequest],
        file: Callable[[], File],
    ) -> AnyMethod:
        async def send(call: Call, _: object) -> AsyncGenerator[HttpBody, None]:
            with self._reading():
                for part in _answer(call, file()):
                    yield part

        return Method(
            service=SERVICE, name=name, request=request, response=HttpBody, access=Public(), kind=ServerStream(send)
        )

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Count a reader. Raises `NotFound` if the files are not served, and `Overloaded`."""
        if not self._on:
            raise NotFound("The reference is turned off: `--docs on` serves it.", reason=Reason.NO_SUCH_PATH)
        if self._readers >= _MOST_READERS:
            raise Overloaded("Too many readers load the reference.")
        self._readers += 1
        try:
            yield
        finally:
            self._readers -= 1


def _answer(call: Call, file: File) -> Iterator[HttpBody]:
    """Yield the parts of a file. For the bridge, set the headers of the answer: 304 if the reader has the file."""
    compressed = call.bridged and _takes_gzip(call.text("accept-encoding") or "")
    tag = f'"{file.tag}-gzip"' if compressed else f'"{file.tag}"'
    if call.bridged:
        call.reply_metadata += (*_ALWAYS, ("etag", tag))
        if file.policy:
            call.reply_metadata.append(("content-security-policy", file.policy))
        if _has(call.text("if-none-match") or "", file.tag):
            call.reply_metadata.append((status.HTTP_STATUS_KEY, "304"))
            yield HttpBody(content_type=file.content_type)
            return
        if compressed:
            call.reply_metadata.append(("content-encoding", "gzip"))
    for part in file.parts(compressed=compressed):
        yield HttpBody(content_type=file.content_type, data=part)


def _takes_gzip(accepted: str) -> bool:
    """Whether an `Accept-Encoding` allows gzip (RFC 9110, 12.5.3)."""
    weights = {}
    for each in accepted.lower().replace(" ", "").split(","):
        name, _, weight = each.partition(";q=")
        weights[name] = weight.rstrip("0") not in ("", "0.") or not weight
    return weights.get("gzip", weights.get("*", False))


def _has(if_none_match: str, tag: str) -> bool:
    """Whether an `If-None-Match` names a file, in any encoding (RFC 9110, 13.1.2)."""
    tags = (each.strip().removeprefix("W/").strip('"') for each in if_none_match.split(","))
    return any(each in ("*", tag, f"{tag}-gzip") for each in tags)
