"""Reads and refuses requests of gRPC's standard services, health and reflection, which do not use the pipeline."""

from functools import partial
from typing import TypeAlias, TypeVar

import grpc.aio
from google.protobuf.message import DecodeError, Message

from headgate_server.core.errors import HeadgateError, InvalidRequest
from headgate_server.core.reasons import Reason
from headgate_server.rpc import status
from headgate_server.rpc.pipeline.gate import Gate
from headgate_server.rpc.transport import received

Context: TypeAlias = grpc.aio.ServicerContext[bytes, bytes]

_Request = TypeVar("_Request", bound=Message)


async def read(gate: Gate, kind: type[_Request], context: Context) -> _Request:
    """Receive a call's one request and parse it, or end the call with an error's code."""
    try:
        body = await gate.receive(0, partial(received, context))
    except HeadgateError as error:
        raise await abort(context, error) from None
    return await parse(body, kind, context)


async def parse(body: bytes, kind: type[_Request], context: Context) -> _Request:
    """Parse a request, or end the call with INVALID_ARGUMENT."""
    try:
        return kind.FromString(body)
    except DecodeError:
        message = f"The request is not a serialized {kind.DESCRIPTOR.full_name}."
        raise await abort(context, InvalidRequest(message, reason=Reason.MALFORMED_REQUEST)) from None


async def abort(context: Context, error: HeadgateError) -> HeadgateError:
    """End a call with an error's code, message and details. It never returns: grpc raises its own exception."""
    code = status.code_of(error).grpc
    await context.abort(code, status.printable(error.message), ((status.DETAILS_KEY, status.encode(error)),))
    return error
