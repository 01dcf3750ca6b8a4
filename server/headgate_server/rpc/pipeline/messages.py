"""The innermost part of the pipeline. It turns bytes into messages for the method, and the method's messages into
bytes. HTTP bodies are decompressed and measured only here.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, assert_never

from google.api.httpbody_pb2 import HttpBody
from google.protobuf.message import DecodeError, Message

from headgate_server.core.errors import InvalidRequest
from headgate_server.core.inflate import check_size, gunzip
from headgate_server.core.reasons import Reason
from headgate_server.rpc.pipeline import printer, query, sse
from headgate_server.rpc.pipeline.call import CODING_KEY, Call, Handler
from headgate_server.rpc.pipeline.method import AnyMethod, BothWays, Serialized, ServerStream, Unary

_Read = Callable[[Call, bytes], Awaitable[Any]]
_Write = Callable[[Call, Message | Serialized], Awaitable[bytes]]

_BODY_FIELD = "json"
"""The field in which the bridge puts an HTTP body that it does not read."""
_JSON = "application/json"
_LINES = "application/x-ndjson"
"""The content type of a stream: one JSON object on each line."""
_PRINTED_INLINE = 32 * 1024
"""A message of at most so many bytes is printed at once, in about a millisecond. A larger one is printed on a thread.
"""


def handler_of(method: AnyMethod, body_limit: int) -> Handler:
    """Return the handler that answers a method's calls. The method may be of any kind.

    Raises `TypeError` if its response cannot be written as REST's JSON.
    """
    if method.response is not HttpBody:
        printer.check(method.response.DESCRIPTOR)
    read = _reader(method, body_limit)
    match method.kind:
        case Unary(answer):
            write = _writer(printer.unwrapped(method.service, method.name))

            async def unary(call: Call) -> bytes:
                return await write(call, await answer(call, await read(call, await _received(method.request, call))))

            return unary
        case ServerStream(handler=stream):

            async def server_stream(call: Call) -> bytes:
                return await _send_all(call, stream(call, await read(call, await _received(method.request, call))))

            return server_stream
        case BothWays(exchange):

            async def both_ways(call: Call) -> bytes:
                return await _send_all(call, exchange(call, _requests(call, read, method.largest or body_limit)))

            return both_ways
        case _ as never:
            assert_never(never)


async def _received(kind: type[Message], call: Call) -> bytes:
    """Receive the request. A request without fields is not read, so that the probes, which need no key, use no memory
    for it.
    """
    if not kind.DESCRIPTOR.fields:
        return b""
    assert call.receive is not None  # noqa: S101 - the server sets it for a call of this kind
    return await call.receive()


async def _requests(call: Call, read: _Read, largest: int) -> AsyncIterator[Any]:
    """Yield the requests of a stream. A large one is refused before it is parsed, which would copy it."""
    assert call.messages is not None  # noqa: S101 - the server sets them for a call of this kind
    async for message in call.messages:
        check_size(len(message), largest)
        yield await read(call, message)


async def _send_all(call: Call, responses: AsyncGenerator[Message, None]) -> bytes:
    """Send a stream, response by response. Close the generator at its end, and if the caller is gone."""
    assert call.send is not None  # noqa: S101 - the server sets it for a call of this kind
    line = _line_writer(call)
    async with aclosing(responses):
        async for response in responses:
            await call.send(await line(response))
            call.sent += 1
    return b""


def _reader(method: AnyMethod, body_limit: int) -> _Read:
    """Return a function that reads a request. It raises `InvalidRequest`, `BodyTooLarge`, and the errors of the
    method's `admit`.

    The limit applies to the decompressed bytes of an HTTP body, and to the bytes of the message for any other request.
    """
    kind, admit = method.request, method.admit
    body_of = _http_body(kind)
    bridge_field = _BODY_FIELD if _BODY_FIELD in kind.DESCRIPTOR.fields_by_name else None

    async def read(call: Call, serialized: bytes) -> Any:
        try:
            request = query.read(kind, serialized) if call.bridged else kind.FromString(serialized)
        except DecodeError:
            raise InvalidRequest(
                f"The request is not a serialized {kind.DESCRIPTOR.full_name}.", reason=Reason.MALFORMED_REQUEST
            ) from None
        if bridge_field is not None and not call.bridged:
            # The public message does not have this field. It is ignored like any unknown field.
            request.ClearField(bridge_field)
        if admit is not None:
            await admit(call, request)
        body = body_of(request)
        if body is None:
            check_size(len(serialized), body_limit)
        elif call.text(CODING_KEY) == "gzip":
            body.data = await asyncio.to_thread(gunzip, body.data, body_limit, call.hold)
        else:
            check_size(len(body.data), body_limit)
        return request

    return read


def _http_body(kind: type[Message]) -> Callable[[Any], HttpBody | None]:
    """Return a function that finds the HTTP body of a request: the request itself, its field `json`, or None."""
    if kind is HttpBody:
        return lambda request: request
    field = kind.DESCRIPTOR.fields_by_name.get(_BODY_FIELD)
    if field is not None and field.message_type is HttpBody.DESCRIPTOR:
        return lambda request: request.json if request.HasField("json") else None
    return lambda request: None


def _writer(member: str) -> _Write:
    """Return a function that writes the response of a unary call: as a message, or as JSON for the bridge. If `member`
    is not empty, the JSON has only the value of that field.
    """

    async def write(call: Call, response: Message | Serialized) -> bytes:
        if isinstance(response, Serialized):
            return response.data
        message: Message = response
        if call.bridged and not isinstance(message, HttpBody):
            content = getattr(message, member) if member else message
            message = HttpBody(content_type=_JSON, data=await _printed(content))
        return message.SerializeToString()

    return write


def _line_writer(call: Call) -> Callable[[Message], Awaitable[bytes]]:
    """Return a function that writes the responses of a stream: as messages, or for the bridge as lines of JSON or as
    server-sent events.
    """
    if not call.bridged:
        return _serialized
    if sse.is_wanted(call.text("accept")):
        kind, framed = sse.CONTENT_TYPE, sse.Frames(call.text(sse.LAST_EVENT_ID), _printed).__call__
    else:
        kind, framed = _LINES, _json_line

    async def write(response: Message) -> bytes:
        if not isinstance(response, HttpBody):
            response = HttpBody(content_type=kind, data=await framed(response))
        return response.SerializeToString()

    return write


async def _serialized(response: Message) -> bytes:
    return response.SerializeToString()


async def _json_line(response: Message) -> bytes:
    return await _printed(response) + b"\n"


async def _printed(message: Message) -> bytes:
    """Print a message. A large one is printed on a thread, so that it does not delay other calls."""
    if message.ByteSize() > _PRINTED_INLINE:
        return await asyncio.to_thread(printer.print_json, message)
    return printer.print_json(message)
