"""headgate.v1.AdminService."""

from collections.abc import Sequence
from typing import Any

from headgate.v1 import admin_service_pb2 as pb
from headgate.v1.bridge_view_pb2 import (
    RawCreateKeyRequest,
    RawCreateManagedWorkspaceRequest,
    RawRotateKeyRequest,
    RawUpdateKeyRequest,
    RawUpdateManagedWorkspaceRequest,
)
from headgate_server.access import keys
from headgate_server.access.admin import find_workspace
from headgate_server.core import event_types
from headgate_server.core.audit import RESERVED
from headgate_server.core.errors import InvalidRequest
from headgate_server.core.model import KeyLimits, Workspace
from headgate_server.core.reasons import Reason
from headgate_server.ingest.event_types import EventTypeChecks
from headgate_server.process.clock import Clock, system_clock
from headgate_server.rpc import admin_messages as messages
from headgate_server.rpc import bodies
from headgate_server.rpc.pages import bad_token, name_after, name_token, page_size
from headgate_server.rpc.pipeline.call import Call
from headgate_server.rpc.pipeline.method import AnyMethod, Method, Operates, Unary
from headgate_server.store import Directory, Limits, ManagedWorkspaces
from headgate_server.store.managed import WorkspaceChange

SERVICE = "headgate.v1.AdminService"
_DEFAULT_PAGE = 50
_LARGEST_PAGE = 1_000


class AdminServicer:
    """Creates, shows and changes workspaces and keys."""

    def __init__(
        self,
        directory: Directory,
        limits: Limits,
        managed: ManagedWorkspaces,
        checks: EventTypeChecks,
        clock: Clock = system_clock,
    ):
        self._directory = directory
        self._limits = limits
        self._managed = managed
        self._checks = checks
        self._clock = clock

    def methods(self) -> Sequence[AnyMethod]:
        """Return the service's methods."""
        return (
            _method("CreateManagedWorkspace", self.create_workspace, RawCreateManagedWorkspaceRequest),
            _method("GetManagedWorkspace", self.get_workspace),
            _method("ListManagedWorkspaces", self.list_workspaces),
            _method("UpdateManagedWorkspace", self.update_workspace, RawUpdateManagedWorkspaceRequest),
            _method("CreateKey", self.create_key, RawCreateKeyRequest),
            _method("GetKey", self.get_key),
            _method("ListKeys", self.list_keys),
            _method("UpdateKey", self.update_key, RawUpdateKeyRequest),
            _method("RotateKey", self.rotate_key, RawRotateKeyRequest),
            _method("RevokeKey", self.revoke_key),
        )

    async def create_workspace(
        self, call: Call, request: RawCreateManagedWorkspaceRequest
    ) -> pb.CreateManagedWorkspaceResponse:
        """Create a workspace."""
        sent = request.workspace
        if request.HasField("json"):
            bodies.fill(sent, bodies.read_object(request.json.data))
        if not sent.name:
            raise InvalidRequest("The name field is required.", reason=Reason.MISSING_FIELD, field="name")
        if sent.name == RESERVED:
            text = f"The name {RESERVED} is reserved for the audit."
            raise InvalidRequest(text, reason=Reason.INVALID_FIELD, field="name")
        keys.check_workspace(sent.name)
        change = _changes(sent, ["quota", "rates", *(["unknown_event_types"] if sent.unknown_event_types else [])])
        made = await self._managed.by(call.actor).create(sent.name, change)
        return pb.CreateManagedWorkspaceResponse(workspace=await self._changed(made))

    async def get_workspace(self, call: Call, request: pb.GetManagedWorkspaceRequest) -> pb.GetManagedWorkspaceResponse:
        """Return a workspace."""
        workspace = await find_workspace(self._directory, request.workspace_name)
        return pb.GetManagedWorkspaceResponse(workspace=await self._shown(workspace))

    async def list_workspaces(
        self, call: Call, request: pb.ListManagedWorkspacesRequest
    ) -> pb.ListManagedWorkspacesResponse:
        """Return one page of workspaces."""
        size = page_size(request.page_size, _DEFAULT_PAGE, _LARGEST_PAGE)
        after = name_after(request.page_token)
        left = [one for one in await self._directory.workspaces() if one.name > after]
        page = [await self._shown(one) for one in left[:size]]
        token = name_token(page[-1].name) if len(left) > size else ""
        return pb.ListManagedWorkspacesResponse(workspaces=page, next_page_token=token)

    async def update_workspace(
        self, call: Call, request: RawUpdateManagedWorkspaceRequest
    ) -> pb.UpdateManagedWorkspaceResponse:
        """Change a workspace's limits and settings."""
        named = messages.named_fields(request, "workspace", ("quota", "rates", "unknown_event_types"))
        change = _changes(request.workspace, named)
        messages.check_limitable(request.workspace_name)
        changed = await self._managed.by(call.actor).update(request.workspace_name, change)
        return pb.UpdateManagedWorkspaceResponse(workspace=await self._changed(changed))

    async def create_key(self, call: Call, request: RawCreateKeyRequest) -> pb.CreateKeyResponse:
        """Create a key."""
        if request.HasField("json"):
            bodies.fill(request.key, bodies.read_object(request.json.data))
        new = messages.new_key(request.key, request.request_id)
        secret, record = await keys.create(self._directory.by(call.actor), new, self._clock)
        return pb.CreateKeyResponse(key=messages.key_message(record, self._clock(), secret))

    async def get_key(self, call: Call, request: pb.GetKeyRequest) -> pb.GetKeyResponse:
        """Return a key."""
        record = await keys.get(self._directory, request.id)
        return pb.GetKeyResponse(key=messages.key_message(record, self._clock()))

    async def list_keys(self, call: Call, request: pb.ListKeysRequest) -> pb.ListKeysResponse:
        """Return one page of keys."""
        size = page_size(request.page_size, _DEFAULT_PAGE, _LARGEST_PAGE)
        after = _place_of(request)
        workspace = await find_workspace(self._directory, request.workspace) if request.workspace else None
        found = await self._directory.page_keys(None if workspace is None else workspace.id, size + 1, after)
        page = [messages.key_message(record, self._clock()) for record in found[:size]]
        token = ""
        if len(found) > size:
            last = found[size - 1]
            token = name_token(f"{last.created_at} {last.id} {request.workspace}")
        return pb.ListKeysResponse(keys=page, next_page_token=token)

    async def update_key(self, call: Call, request: RawUpdateKeyRequest) -> pb.UpdateKeyResponse:
        """Change a key's name or limits."""
        named = messages.named_fields(request, "key", ("name", "calls", "events"))
        old = await keys.get(self._directory, request.id)
        sent = {name: messages.limit_of(name, getattr(request.key, name)) for name in ("calls", "events")}
        limits = old.limits._replace(**{name: limit for name, limit in sent.items() if name in named})
        name = request.key.name if "name" in named else None
        record = await keys.change(self._directory.by(call.actor), request.id, name=name, limits=KeyLimits(*limits))
        return pb.UpdateKeyResponse(key=messages.key_message(record, self._clock()))

    async def rotate_key(self, call: Call, request: RawRotateKeyRequest) -> pb.RotateKeyResponse:
        """Create a key in place of another one."""
        sent = pb.RotateKeyRequest()
        if request.HasField("json"):
            body = bodies.read_object(request.json.data)
            body.pop("id", None)
            bodies.fill(sent, body)
        else:
            sent.MergeFromString(request.SerializeToString())
        overlap = sent.overlap_seconds * 1_000_000 if sent.HasField("overlap_seconds") else keys.DAY
        directory = self._directory.by(call.actor)
        expires_at = messages.time_of(sent, "expires_at")
        secret, record = await keys.rotate(directory, request.id, overlap, expires_at, self._clock)
        return pb.RotateKeyResponse(key=messages.key_message(record, self._clock(), secret))

    async def revoke_key(self, call: Call, request: pb.RevokeKeyRequest) -> pb.RevokeKeyResponse:
        """Revoke a key."""
        await self._directory.by(call.actor).revoke_key(request.id, self._clock())
        record = await keys.get(self._directory, request.id)
        return pb.RevokeKeyResponse(key=messages.key_message(record, self._clock()))

    async def _changed(self, workspace: Workspace) -> pb.ManagedWorkspace:
        """Return a workspace that was changed. What is done with unknown types applies here at once."""
        self._checks.changed(workspace.id, workspace.types_revision)
        return await self._shown(workspace)

    async def _shown(self, workspace: Workspace) -> pb.ManagedWorkspace:
        return messages.workspace_message(workspace, await self._limits.usage(workspace.id))


def _changes(sent: pb.ManagedWorkspace, named: Sequence[str]) -> WorkspaceChange:
    """Return the checked values to set. Rates that are named and empty are a change of all. Raises `InvalidRequest`."""
    return WorkspaceChange(
        quota=messages.quota_of(sent) if "quota" in named else ...,
        rates=messages.rates_of(sent.rates) if "rates" in named else {},
        only_rates="rates" in named and not sent.rates,
        unknown=event_types.unknown_of(sent.unknown_event_types) if "unknown_event_types" in named else None,
    )


def _place_of(request: pb.ListKeysRequest) -> tuple[int, str] | None:
    """Return the place of the last key of the previous page. Raises `InvalidRequest`."""
    if not request.page_token:
        return None
    created_at, _, rest = name_after(request.page_token).partition(" ")
    key_id, _, workspace = rest.partition(" ")
    if not (created_at.isascii() and created_at.isdigit() and len(created_at) < 18) or workspace != request.workspace:
        raise bad_token()
    return int(created_at), key_id


def _method(name: str, handler: Any, request: type[Any] | None = None) -> AnyMethod:
    return Method(
        service=SERVICE,
        name=name,
        request=request or getattr(pb, f"{name}Request"),
        response=getattr(pb, f"{name}Response"),
        access=Operates(),
        kind=Unary(handler),
    )
