"""What the paths of the API name: made for a test, through the API itself."""

import uuid
from collections.abc import Callable
from typing import Any

from headgate_server.core.audit import RESERVED
from tests.support.edge import Edge
from tests.support.openapi import Operation
from tests.support.vendors import VENDORS
from tests.support.waiting import until_true


def _destination(edge: Edge, name: str = "other") -> str:
    body = {"name": name, "webhook": {"url": "http://nobody.invalid/"}, "start": "beginning"}
    return str(edge.post("/v1/destinations", body).json()["id"])


def _failed(edge: Edge, path: str, event: Any) -> tuple[str, int]:
    """Store an event, and let its delivery fail. Return the destination's id and the event's sequence."""
    destination = _destination(edge)
    assert edge.post(path, event).is_success
    failures = until_true(lambda: edge.http.get(f"/v1/destinations/{destination}/failures").json()["failures"])
    return destination, failures[0]["sequence"]


def _rejection(edge: Edge) -> str:
    edge.batch({"source": "shop"})
    return str(until_true(lambda: edge.http.get("/v1/rejections").json()["rejections"])[0]["id"])


def _of_vendor(edge: Edge, name: str) -> str:
    vendor = VENDORS[name]
    assert edge.post(vendor.batch, {"events": vendor.events(1)}).is_success
    return str(edge.http.get("/v1/events").json()["events"][0]["id"])


def _failed_of_scrip(edge: Edge) -> str:
    event = VENDORS["scrip"].event(0)
    destination, sequence = _failed(edge, "/compat/scrip/v1/events", event)
    assert edge.post(f"/v1/destinations/{destination}/failures/{sequence}:skip", {}).is_success
    return str(edge.http.get("/v1/events").json()["events"][0]["id"])


def _key(edge: Edge) -> str:
    body = {"workspace": f"w{uuid.uuid4().hex}", "scopes": ["events:read"]}
    return str(edge.post("/v1/admin/keys", body).json()["id"])


def _workspace(edge: Edge) -> str:
    return str(edge.post("/v1/admin/workspaces", {"name": f"w{uuid.uuid4().hex}"}).json()["name"])


def edge_for(make_edge: Callable[..., Edge], operation: Operation) -> Edge:
    """Return clients that may call an operation: operators' calls need a key of the reserved workspace."""
    return make_edge(workspace=RESERVED) if operation.value["tags"][0] == "AdminService" else make_edge()


_IDS: dict[str, Callable[[Edge], str]] = {
    "AdminService": _key,
    "DestinationService": _destination,
    "EventService": lambda edge: str(edge.batch({"type": "t"})["results"][0]["id"]),
    "RejectionService": _rejection,
    "immutable": lambda edge: _of_vendor(edge, "immutable"),
    "scrip": lambda edge: _of_vendor(edge, "scrip"),
    "scripRetry": _failed_of_scrip,
}
"""How to make what an operation's path names, by the operation or its tag."""


def values_of_path(edge: Edge, operation: Operation) -> dict[str, str]:
    """Return values for the variables of an operation's path: they name things that exist."""
    if "{sequence}" in operation.path:
        destination, sequence = _failed(edge, "/v1/events", {"type": "t"})
        return {"id": destination, "sequence": str(sequence)}
    if "{workspace_name}" in operation.path:
        return {"workspace_name": _workspace(edge)}
    if "{event_type}" in operation.path:
        edge.http.put("/v1/event-types/order.completed", json={"schema": {}}).raise_for_status()
        return {"event_type": "order.completed"}
    if "{id}" not in operation.path:
        return {}
    make = _IDS.get(operation.id) or _IDS[operation.value["tags"][0]]
    return {"id": make(edge)}
