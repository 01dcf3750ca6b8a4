"""The OpenAPI document as a whole."""

import json
import re
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet

from headgate_bridge.descriptor import envoy_view
from headgate_bridge.openapi import answers, vendors
from headgate_bridge.openapi.examples import Examples
from headgate_bridge.openapi.operations import Operations
from headgate_bridge.openapi.protos import Protos
from headgate_bridge.openapi.schemas import Schemas

Json = dict[str, Any]

_INTRODUCTION = """Headgate ingests events: durable, deduplicated for ever, in a tamper-evident ledger.

- **A key** is sent as `Authorization: Bearer hg_…` or as `X-API-Key: hg_…`. Each operation names the scope that the key
  needs; the scope `admin` allows all of them.
- **Bodies** may be compressed: `Content-Encoding: gzip`. `HEAD` is answered like `GET`, without the body.
- **Errors** have one form, whose `reason` is for programs. The vendors' paths have their vendors' forms.
- **Numbers** in `data` keep their value at any length. Other 64-bit integers are JSON numbers too.
- **Clients** ignore members of answers that they do not know: new ones may be added.
"""


def document(image: FileDescriptorSet, version: str) -> bytes:
    """Return the OpenAPI document of the protos, which must have their comments.

    Raises `ValueError` if the protos and the tables beside them do not fit together.
    """
    protos, envoy = Protos(image), Protos(envoy_view(image))
    schemas, examples = Schemas(protos), Examples()
    operations = Operations(protos, envoy, schemas, examples)
    paths: Json = {}
    for path, verb, value in (*operations, *vendors.operations()):
        paths.setdefault(path, {})[verb] = value
    examples.check()
    _check_ids(paths)
    whole = {
        "openapi": "3.1.1",
        "info": {"title": "Headgate", "version": version, "description": _INTRODUCTION},
        "tags": [*operations.tags(), *vendors.tags()],
        "paths": paths,
        "components": {
            "schemas": dict(sorted((schemas.components | vendors.schemas() | answers.schemas()).items())),
            "responses": answers.responses() | vendors.responses(),
            "headers": answers.HEADERS,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer", "description": "An API key, `hg_…`."},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key", "description": "An API key, `hg_…`."},
            },
        },
    }
    return json.dumps(whole, indent=1, ensure_ascii=False).encode() + b"\n"


def _check_ids(paths: Json) -> None:
    """Raise `ValueError` if two operations have one id, or two paths differ only in the names of their variables."""
    ids = [operation["operationId"] for path in paths.values() for operation in path.values()]
    shapes = [re.sub(r"\{\w+\}", "{}", path) for path in paths]
    for kind, names in (("operationId", ids), ("path", shapes)):
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"the same {kind} twice: {', '.join(sorted(twice))}")
