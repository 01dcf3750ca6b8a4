"""Texts that no store has: every text of every request, alone and all at once. PostgreSQL refuses a NUL in a text."""

from collections.abc import Iterator

import grpc
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

from headgate_server.core.audit import RESERVED
from headgate_server.core.model import Scope
from tests.rpc.test_access import ADMIN, DESCRIPTORS, GUARDED
from tests.support.calls import Caller
from tests.support.inprocess import Service

_TEXTS = ("\0", "a\0b", "\x7f", "\U0010ffff", "x" * 5_000)
_REFUSED = frozenset(
    {
        grpc.StatusCode.OK,
        grpc.StatusCode.INVALID_ARGUMENT,
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.ABORTED,
    }
)
_DEPTH = 3


async def test_a_text_that_no_store_has_is_refused_or_not_found(service: Service) -> None:
    async with service.caller(Scope.ADMIN) as of_workspace, service.caller(Scope.ADMIN, workspace=RESERVED) as operator:
        for parameter in GUARDED:
            (name,) = parameter.values
            method = DESCRIPTORS[str(name)]
            if not (method.client_streaming or method.server_streaming):
                caller = operator if str(name).startswith(ADMIN) else of_workspace
                for said, request in _requests(method):
                    code, details = await _code(caller, str(name), request)
                    assert code in _REFUSED, (name, said, code, details)


async def _code(caller: Caller, name: str, request: Message) -> tuple[grpc.StatusCode, str]:
    call = caller._channel.unary_unary(name)(request.SerializeToString(), metadata=caller.metadata)
    return await call.code(), await call.details()


def _requests(method: MethodDescriptor) -> Iterator[tuple[str, Message]]:
    places = list(_places(method.input_type))
    for text in _TEXTS:
        full = GetMessageClass(method.input_type)()
        for place in places:
            alone = GetMessageClass(method.input_type)()
            _set(alone, place, text)
            _set(full, place, text)
            yield f"{'.'.join(field.name for field in place)}={text[:9]!r}", alone
        yield f"all={text[:9]!r}", full


def _places(message: Descriptor, above: tuple[FieldDescriptor, ...] = ()) -> Iterator[tuple[FieldDescriptor, ...]]:
    """Yield the ways to the texts of a message."""
    for field in message.fields:
        if field.type == FieldDescriptor.TYPE_STRING:
            yield (*above, field)
        elif field.message_type is not None and len(above) < _DEPTH and not field.message_type.GetOptions().map_entry:
            yield from _places(field.message_type, (*above, field))


def _set(message: Message, place: tuple[FieldDescriptor, ...], text: str) -> None:
    *above, last = place
    for field in above:
        value = getattr(message, field.name)
        message = (value[0] if value else value.add()) if field.is_repeated else value
    if last.is_repeated:
        getattr(message, last.name).append(text)
    else:
        setattr(message, last.name, text)
