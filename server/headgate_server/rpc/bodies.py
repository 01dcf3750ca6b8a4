"""JSON bodies that the server reads into a message itself. Envoy would drop unknown fields, and explain no error."""

from collections.abc import Iterator
from typing import Any

import orjson
from google.protobuf.json_format import ParseDict, ParseError
from google.protobuf.message import Message

from headgate_server.core.errors import InvalidRequest
from headgate_server.core.reasons import Reason


def read_object(data: bytes) -> dict[str, Any]:
    """Return the object of a JSON body; an empty body is an empty object. Raises `InvalidRequest`."""
    if not data.strip():
        return {}
    try:
        value = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise InvalidRequest(f"The body is not JSON: {error}.", reason=Reason.MALFORMED_JSON) from None
    if not isinstance(value, dict):
        raise InvalidRequest("The body is not an object.", reason=Reason.NOT_AN_OBJECT)
    return value


def fill(message: Message, value: dict[str, Any]) -> None:
    """Fill a message from a JSON object. Its names are those of the proto or in camelCase.

    Raises `InvalidRequest` if the message does not have a name, or a value has a wrong type.
    """
    for path in paths(message.DESCRIPTOR, value):
        _check_known(message.DESCRIPTOR, path)
    try:
        ParseDict(value, message)
    except ParseError as error:
        raise InvalidRequest(f"{str(error)[:300]}", reason=Reason.WRONG_TYPE) from None


def paths(descriptor: Any, value: dict[str, Any]) -> Iterator[str]:
    """Yield the paths of the values in an object, in the names of the proto: `webhook.url`. A map is one value."""
    for name, inner in value.items():
        field = _field(descriptor, name)
        proto_name = name if field is None else field.name
        nested = None if field is None or field.is_repeated else field.message_type
        if nested is None or not isinstance(inner, dict) or nested.file.package.startswith("google."):
            yield proto_name
            continue
        yield from (f"{proto_name}.{rest}" for rest in paths(nested, inner))


def _check_known(descriptor: Any, path: str) -> None:
    name, _, rest = path.partition(".")
    field = descriptor.fields_by_name.get(name)
    if field is None:
        raise InvalidRequest(f"The field {path[:80]!r} is not known.", reason=Reason.UNKNOWN_FIELD, field=path[:80])
    if rest and field.message_type is not None:
        try:
            _check_known(field.message_type, rest)
        except InvalidRequest as error:
            whole = f"{name}.{error.field}"
            raise InvalidRequest(
                f"The field {whole!r} is not known.", reason=Reason.UNKNOWN_FIELD, field=whole
            ) from None


def _field(descriptor: Any, name: str) -> Any:
    field = descriptor.fields_by_name.get(name)
    return field if field is not None else descriptor.fields_by_camelcase_name.get(name)
