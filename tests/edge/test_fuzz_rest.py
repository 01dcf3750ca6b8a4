"""Fuzzed by its own description: schemathesis makes requests from the OpenAPI document, valid ones and others.

No answer is 5xx, or has a status, a media type or a body that the document does not describe. `make fuzz` makes many
more requests.
"""

import os
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from schemathesis import Case, GenerationMode
from schemathesis.specs.openapi import checks

from headgate_bridge.openapi.tables import WORKSPACE
from tests.edge.conftest import MakeEdge
from tests.support.openapi import DOCUMENT, OPERATIONS, Operation, check_answer
from tests.support.things import edge_for, values_of_path

EXAMPLES = int(os.environ.get("HEADGATE_FUZZ", "6"))
"""Requests of each operation."""

SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
DESCRIBED = {found.ok().definition.raw["operationId"]: found.ok() for found in SCHEMA.get_all_operations()}
ENDING = [operation for operation in OPERATIONS if operation.id != "subscribe"]
CHECKS = [schemathesis.checks.not_a_server_error, checks.status_code_conformance, checks.content_type_conformance]
CHECKS += [checks.response_headers_conformance, checks.response_schema_conformance]


def _as_text(context: schemathesis.SerializationContext, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode(errors="surrogatepass")


OTHER_TYPES = {
    media_type
    for operation in OPERATIONS
    for media_type in operation.value.get("requestBody", {}).get("content", {})
    if not media_type.endswith("json") or "ndjson" in media_type
}
schemathesis.serializer(*sorted(OTHER_TYPES))(_as_text)


@pytest.mark.parametrize("operation", ENDING, ids=lambda operation: operation.id)
def test_answers_are_as_described(make_edge: MakeEdge, operation: Operation) -> None:
    edge = edge_for(make_edge, operation)
    things = values_of_path(edge, operation)
    described = DESCRIBED[operation.id]
    modes = (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)

    with requests.Session() as session:

        @settings(
            max_examples=EXAMPLES,
            database=None,
            phases=(Phase.generate, Phase.shrink) if EXAMPLES > 10 else (Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )
        @given(data=st.data())
        def answered(data: st.DataObject) -> None:
            case: Case = data.draw(described.as_strategy(generation_mode=data.draw(st.sampled_from(modes))))
            if things and data.draw(st.booleans()):
                case.path_parameters = dict(things)
            if data.draw(st.integers(0, 9)):
                case.headers.pop(WORKSPACE, None)  # most others are refused at once, with the answer of the first
            try:
                response = case.call(
                    base_url=f"http://{edge.up.rest}", session=session, headers={"x-api-key": edge.key}, timeout=30
                )
            except (requests.exceptions.InvalidHeader, requests.exceptions.InvalidURL, ValueError):
                assume(False)  # the client itself cannot send it
            case.validate_response(response, checks=CHECKS)
            headers = {name: values[0] for name, values in response.headers.items()}
            check_answer(operation, response.status_code, headers, response.content)

        answered()
