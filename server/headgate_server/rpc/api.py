"""Calls of the API with values of JSON: of a service over the network, or at the store itself. Both answer alike, so a
command line works with either.
"""

import asyncio
import re
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Iterable, Mapping
from typing import Any, NamedTuple

import orjson
from google.protobuf import message_factory
from google.protobuf.descriptor_pool import Default
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message

from headgate.v1 import (  # noqa: F401 - the descriptors of the services that are called
    admin_service_pb2,
    destination_service_pb2,
    event_service_pb2,
    event_type_service_pb2,
    rejection_service_pb2,
    workspace_service_pb2,
)
from headgate_client.core.address import Certificates, check_certificates, check_key, parse
from headgate_client.core.errors import Problem
from headgate_client.core.scripts import Call as ClientCall
from headgate_client.transport import Transport, channel_maker
from headgate_server.access.auth import WORKSPACE_NAME, Principal
from headgate_server.core.audit import RESERVED, Actor
from headgate_server.core.errors import HeadgateError, NotFound, SetupError
from headgate_server.core.model import Scope, Workspace
from headgate_server.core.reasons import Reason
from headgate_server.rpc.pipeline import printer
from headgate_server.rpc.pipeline.call import WORKSPACE_KEY, Call
from headgate_server.rpc.pipeline.method import AnyMethod, Serialized, ServerStream, Unary

_PACKAGE = "headgate.v1"
NO_CERTIFICATES = Certificates()
_SECONDS = 60.0
"""For one answer. A replay of many rejections takes the longest."""


class _Kinds(NamedTuple):
    request: type[Message]
    response: type[Message]


class CallFailed(HeadgateError):
    """The service refused a call, or could not be reached. The message is for the person who asked."""


class Api(ABC):
    """Makes calls. A method is named as "EventService/GetEvent", a request by the members of its message."""

    async def call(self, method: str, request: Mapping[str, Any] | None = None) -> Any:
        """Return the answer as REST's JSON writes it. Raises `HeadgateError`."""
        return orjson.loads(printer.print_json(await self._answer(method, _message(method, request or {}))))

    async def texts(self, method: str, request: Mapping[str, Any], member: str) -> tuple[list[str], str]:
        """Return the items of a page as the JSON that REST writes, with every digit of their numbers, and the token of
        the next page. Raises `HeadgateError`.
        """
        answer: Any = await self._answer(method, _message(method, request))
        field = getattr(answer, member)
        items = list(field) if answer.DESCRIPTOR.fields_by_name[member].is_repeated else [field]
        return [printer.print_json(item).decode() for item in items], getattr(answer, "next_page_token", "")

    async def follow(self, method: str, request: Mapping[str, Any], member: str) -> AsyncGenerator[str, None]:
        """Yield one member of the answers of a stream as JSON, where they have it. Raises `HeadgateError`."""
        async for answer in self._answers(method, _message(method, request)):
            if answer.HasField(member):
                yield printer.print_json(getattr(answer, member)).decode()

    @abstractmethod
    async def _answer(self, method: str, request: Message) -> Message: ...

    @abstractmethod
    def _answers(self, method: str, request: Message) -> AsyncGenerator[Message, None]: ...


class Direct(Api):
    """Runs the handlers of methods in this process, in the name of an actor and in one workspace."""

    def __init__(self, methods: Iterable[AnyMethod], actor: Actor, workspace: Workspace):
        self._methods = {method.full_name: method for method in methods}
        self._actor = actor
        self._principal = Principal("", workspace, frozenset({Scope.ADMIN}))

    async def _answer(self, method: str, request: Message) -> Message:
        served, call, sent = self._made(method, request)
        assert isinstance(served.kind, Unary)  # noqa: S101 - the caller names a method of this kind
        answer = await served.kind.handler(call, sent)
        return _kinds(method).response.FromString(answer.data) if isinstance(answer, Serialized) else answer

    async def _answers(self, method: str, request: Message) -> AsyncGenerator[Message, None]:
        served, call, sent = self._made(method, request)
        assert isinstance(served.kind, ServerStream)  # noqa: S101 - as above
        async for answer in served.kind.handler(call, sent):
            yield answer

    def _made(self, method: str, request: Message) -> tuple[AnyMethod, Call, Message]:
        served = self._methods[f"/{_PACKAGE}.{method}"]
        call = Call(served.full_name, {}, principal=self._principal, acting=self._actor)
        return served, call, served.request.FromString(request.SerializeToString())


class Remote(Api):
    """Calls a service. It is closed after use."""

    def __init__(
        self,
        url: str,
        key: str | None,
        certificates: Certificates = NO_CERTIFICATES,
        plaintext: bool | None = None,
        workspace: str | None = None,
    ):
        """The connection is encrypted, except to this machine itself, to `http://`, and with `plaintext`. `workspace`
        is that of the calls, which an operator's key can choose; None: that of the key. Raises `SetupError` if the
        address or the key cannot be one, and `NotFound` if no workspace has such a name.
        """
        if workspace not in (None, RESERVED) and not re.fullmatch(WORKSPACE_NAME, str(workspace)):
            raise NotFound(f"there is no workspace {workspace!r}")
        self._metadata = () if workspace is None else ((WORKSPACE_KEY, workspace),)
        try:
            address = parse(url, plaintext)
            check_certificates(certificates, address)
            self._transport = Transport(channel_maker(address, certificates, ()), check_key(key))
        except ValueError as error:
            raise SetupError(str(error)) from None
        self._url = url

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    async def _answer(self, method: str, request: Message) -> Message:
        kinds = _kinds(method)
        name = f"/{_PACKAGE}.{method}"
        call = ClientCall(name, request.SerializeToString(), kinds.response, _SECONDS, self._metadata)
        answer = await self._transport.call_async(call)
        if isinstance(answer, Problem):
            raise self._failed(answer)
        return answer

    async def _answers(self, method: str, request: Message) -> AsyncGenerator[Message, None]:
        name, kinds = f"/{_PACKAGE}.{method}", _kinds(method)
        stream = self._transport.stream(name, request.SerializeToString(), kinds.response, self._metadata)
        answers = iter(stream)
        try:
            while (answer := await asyncio.to_thread(next, answers, None)) is not None:
                if isinstance(answer, Problem):
                    raise self._failed(answer)
                yield answer
        finally:
            stream.cancel()

    def _failed(self, problem: Problem) -> CallFailed:
        if not problem.reason:
            return CallFailed(f"the service at {self._url} gives no answer: {problem.message or problem.code}")
        reason = Reason(problem.reason) if problem.reason in tuple(Reason) else None
        return CallFailed(problem.message, reason=reason, field=problem.field)


def _kinds(method: str) -> _Kinds:
    service, _, name = method.partition("/")
    found = Default().FindServiceByName(f"{_PACKAGE}.{service}").methods_by_name[name]
    return _Kinds(*map(message_factory.GetMessageClass, (found.input_type, found.output_type)))


def _message(method: str, request: Mapping[str, Any]) -> Message:
    """Return a request. Raises `SetupError` for a value that no message holds, such as a text that is not UTF-8."""
    try:
        message: Message = ParseDict(dict(request), _kinds(method).request())
    except ParseError as error:
        raise SetupError(str(error)) from None
    return message
