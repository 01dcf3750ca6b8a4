"""Rules of HTTP that hold on every path: they are asked of each binding that the descriptor has, also of later ones."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from tests.support.edge import Edge, failure

_DESCRIPTOR = Path(__file__).parents[2] / "generated" / "headgate.binpb"
_GRPC_WEB = [
    "application/grpc-web",
    "application/grpc-web+proto",
    "application/grpc-web-text",
    "application/grpc-web-text+proto",
]


class _Binding(NamedTuple):
    method: str
    path: str
    lasting: bool


def _files() -> FileDescriptorSet:
    return FileDescriptorSet.FromString(_DESCRIPTOR.read_bytes())


def _bindings() -> Iterator[_Binding]:
    """Yield every HTTP binding, with an id in the place of a variable."""
    for file in _files().file:
        for service in file.service:
            for method in service.method:
                rule = method.options.Extensions[annotations_pb2.http]
                for one in (rule, *rule.additional_bindings):
                    kind = one.WhichOneof("pattern")
                    if kind is None:
                        continue
                    verb, path = (one.custom.kind, one.custom.path) if kind == "custom" else (kind, getattr(one, kind))
                    if path != "/compat":  # the bridge's own: a vendor's path becomes this one
                        path = re.sub(r"\{[^}]*\}", "0190a6f2-5a3c-7d21-8f00-3b1c5a7e9d42", path)
                        yield _Binding(verb.upper(), path, method.server_streaming)


def _methods() -> Iterator[str]:
    """Yield the path of every gRPC method."""
    for file in _files().file:
        for service in file.service:
            yield from (f"/{file.package}.{service.name}/{method.name}" for method in service.method)


BINDINGS = sorted(set(_bindings()))
GRPC = sorted(
    {*_methods(), "/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"}
)


def test_there_are_paths() -> None:
    paths = {binding.path for binding in BINDINGS}
    assert {"/v1/events", "/v1/events/batch", "/healthz", "/v1/usage", "/v1/destinations"} <= paths
    assert "/headgate.v1.IngestService/BatchIngest" in GRPC


def test_head_is_a_get_without_the_body(edge: Edge) -> None:
    for path in sorted({binding.path for binding in BINDINGS if binding.method == "GET" and not binding.lasting}):
        got, head = edge.http.get(path), edge.http.head(path)
        assert head.content == b"", path
        assert head.status_code == got.status_code, path
        changing = {"date", "x-request-id"}
        named = [{name for name in one.headers if name not in changing} for one in (got, head)]
        assert named[0] == named[1], path
        assert head.headers["content-length"] == got.headers["content-length"], path


def test_a_trailing_slash_is_another_path(edge: Edge) -> None:
    for binding in BINDINGS:
        for path in (f"{binding.path}/", f"{binding.path}/?page_size=1"):
            response = edge.http.request(binding.method, path)
            assert response.status_code == 404, (binding, response.text)
            if binding.method != "HEAD":
                assert failure(response) == (404, 5, "NO_SUCH_PATH"), binding


@pytest.mark.parametrize("content_type", _GRPC_WEB)
def test_grpc_web_is_refused_by_every_method(edge: Edge, content_type: str) -> None:
    with httpx.Client(http1=False, http2=True, base_url=edge.http.base_url, headers=edge.http.headers) as http2:
        for path in GRPC:
            for client in (edge.http, http2):
                response = client.post(path, content=b"\0\0\0\0\0", headers={"content-type": content_type})
                assert failure(response) == (415, 3, "UNSUPPORTED_MEDIA_TYPE"), path
    assert edge.stored() == 0
