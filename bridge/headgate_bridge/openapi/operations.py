"""Operations: one for each HTTP binding of each method."""

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from google.protobuf.descriptor_pb2 import MethodDescriptorProto, ServiceDescriptorProto

from headgate_bridge.descriptor import BODY, COMPAT_SERVICE, HTTP_BODY, PACKAGE
from headgate_bridge.openapi import answers, tables
from headgate_bridge.openapi.examples import Examples
from headgate_bridge.openapi.protos import Binding, Protos, bindings, type_of
from headgate_bridge.openapi.schemas import Json, Schemas, Side

_VARIABLE = re.compile(r"\{(\w+)(=[^}]*)?\}")
_NOT_MODIFIED = {"description": "The reader has this content already.", "headers": answers.headers(304)}
_WORD = re.compile(r"(?<=[a-z])([A-Z])")
_SCOPE = re.compile(r"scope `([\w:.-]+)`")


class Operation(NamedTuple):
    """One operation, and where it is."""

    path: str
    verb: str
    value: Json


class Operations:
    """Makes the operations of all services but that of the vendors."""

    def __init__(self, protos: Protos, envoy: Protos, schemas: Schemas, examples: Examples):
        """`envoy` is Envoy's copy of the protos, which says the parameters that a query may have."""
        self._protos = protos
        self._envoy = envoy
        self._schemas = schemas
        self._examples = examples

    def __iter__(self) -> Iterator[Operation]:
        for service in self._protos.services:
            for method in service.method if service.name != COMPAT_SERVICE else ():
                for number, binding in enumerate(bindings(method)):
                    value = self._operation(service, method, binding, number)
                    yield Operation(_VARIABLE.sub(r"{\1}", binding.path), binding.verb, value)

    def tags(self) -> list[Json]:
        """Return a tag for each service that is served over HTTP, in the order in which a reader needs them."""
        served = (each for each in self._protos.services if any(map(bindings, each.method)))
        return [
            {
                "name": service.name,
                "x-displayName": service.name.removesuffix("Service"),
                "description": self._protos.comment(PACKAGE, service.name).text,
            }
            for service in sorted(served, key=lambda each: tables.PLACES.get(each.name, 0))
            if service.name != COMPAT_SERVICE
        ]

    def _operation(
        self, service: ServiceDescriptorProto, method: MethodDescriptorProto, binding: Binding, number: int
    ) -> Json:
        comment = self._protos.comment(PACKAGE, service.name, method.name)
        said = f"{self._protos.comment(PACKAGE, service.name).text}\n{comment.text}"
        name = method.name[0].lower() + method.name[1:] + (f"_{number + 1}" if number else "")
        in_path = [found[0] for found in _VARIABLE.findall(binding.path)]
        headers = [header for header, (words, *_) in tables.REQUEST_HEADERS.items() if words in said]
        needs_key = not tables.NEED_NO_KEY & {service.name, method.name}
        in_workspace = needs_key and service.name not in tables.IN_NO_WORKSPACE
        operation: Json = {
            "operationId": name,
            "tags": [service.name],
            "summary": _WORD.sub(r" \1", method.name).capitalize(),
            "description": comment.text,
            "parameters": [
                *(self._parameter(method, field, "path") for field in in_path),
                *(self._parameter(method, field, "query") for field in self._query(method, binding, in_path)),
                *map(_header, headers),
                *([_parameter_of_header(tables.WORKSPACE, *tables.WORKSPACE_HEADER)] if in_workspace else []),
            ],
        }
        operation["security"] = _security(comment.text, said) if needs_key else []
        body = self._body(method, binding, in_path, name)
        if body:
            operation["requestBody"] = body
        fields = type_of(method, "input_type")
        of_fields = " ".join(self._protos.comment(fields, each).text for each in self._protos.fields(fields))
        named = set(answers.statuses_named_in(f"{said}\n{of_fields}")) | ({404} if in_path or in_workspace else set())
        operation["responses"] = {
            "200": self._answer(method, binding, name, headers),
            **_no_content(method.name),
            **({"304": _NOT_MODIFIED} if "If-None-Match" in headers else {}),
            **{
                str(status): {"$ref": f"#/components/responses/{answers.names(status)}"}
                for status in answers.statuses(key=needs_key, body=bool(body), named=named)
            },
        }
        return operation

    def _query(self, method: MethodDescriptorProto, binding: Binding, in_path: list[str]) -> Iterator[str]:
        """Yield the fields that a query may have."""
        view = self._envoy.fields(type_of(method, "input_type"))
        # Where Envoy hands the whole body on, it takes the options of the request from the query too.
        if binding.body == "*" and BODY not in view:
            return
        yield from (name for name in view if name not in (BODY, binding.body, *in_path))

    def _parameter(self, method: MethodDescriptorProto, name: str, where: str) -> Json:
        message = type_of(method, "input_type")
        field = self._protos.fields(message)[name]
        schema = self._schemas.of_field(message, field, Side.REQUEST)
        description, shown = schema.pop("description", ""), schema.pop("examples", [])
        parameter: Json = {"name": name, "in": where, "required": where == "path", "schema": schema}
        if description:
            parameter["description"] = description
        if shown:
            parameter["example"] = shown[0]
        return parameter

    def _body(self, method: MethodDescriptorProto, binding: Binding, in_path: list[str], name: str) -> Json | None:
        if not binding.body:
            return None
        message = type_of(method, "input_type")
        if binding.body == "*":
            kind, without = message, frozenset(in_path)
            required = any(
                self._protos.comment(message, field).required
                for field in self._protos.fields(message)
                if field not in without
            )
        else:
            kind, without = type_of(self._protos.fields(message)[binding.body]), frozenset()
            required = self._protos.comment(message, binding.body).required
        side = Side.PATCH if binding.verb == "patch" else Side.REQUEST
        schema = self._schemas.reference(kind, side, without)
        content = _content(tables.REQUEST_TYPES.get(method.name), kind, schema)
        for media_type, described in content.items():
            if shown := self._examples.of(name, media_type, described["schema"], self._schemas.components):
                described["examples"] = shown
        return {"required": required, "content": content}

    def _answer(self, method: MethodDescriptorProto, binding: Binding, name: str, headers: list[str]) -> Json:
        message = type_of(method, "output_type")
        comment = self._protos.comment(message)
        if binding.response_body:
            comment = self._protos.comment(message, binding.response_body)
            message = type_of(self._protos.fields(message)[binding.response_body])
        schema = self._schemas.reference(message, Side.ANSWER)
        if method.server_streaming and message != HTTP_BODY:
            content = {
                kind: {"schema": schema if "json" in kind else {"type": "string"}} for kind in tables.STREAM_TYPES
            }
            description = "\n".join(f"- `{kind}`: {text}" for kind, text in tables.STREAM_TYPES.items())
        else:
            content = _content(tables.ANSWER_TYPES.get(method.name), message, schema)
            description = "" if message == HTTP_BODY else comment.text
        if (shown := self._examples.answers_of(name)) and "application/json" in content:
            content["application/json"]["examples"] = shown
        of_request = {
            header: {"description": text, "schema": {"type": "string"}}
            for header, (asked, text) in tables.ANSWER_HEADERS.items()
            if asked in headers
        }
        return {
            "description": description or "The answer.",
            "headers": answers.headers(200) | of_request,
            "content": content,
        }


def _content(known: Mapping[str, Any] | None, message: str, schema: Json) -> Json:
    """Return the media types of a body: those of the table, or JSON with a schema if a message describes the body."""
    if known is not None:
        return {kind: {"schema": schema if each is None else each} for kind, each in known.items()}
    return {"*/*": {"schema": {}}} if message == HTTP_BODY else {"application/json": {"schema": schema}}


def _no_content(method: str) -> Json:
    text = tables.NO_CONTENT.get(method)
    return {} if text is None else {"204": {"description": text, "headers": answers.headers(204)}}


def _header(name: str) -> Json:
    _, schema, description = tables.REQUEST_HEADERS[name]
    return _parameter_of_header(name, schema, description)


def _parameter_of_header(name: str, schema: Mapping[str, Any], description: str) -> Json:
    return {"name": name, "in": "header", "required": False, "description": description, "schema": dict(schema)}


def _security(method: str, whole: str) -> list[Json]:
    """Return the ways to send a key. It needs the scopes that the method's comment names, or else its service's."""
    scopes = _SCOPE.findall(method) or _SCOPE.findall(whole)[:1]
    return [{"bearer": scopes}, {"apiKey": scopes}]
