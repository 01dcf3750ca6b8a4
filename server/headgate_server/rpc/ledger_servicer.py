"""headgate.v1.LedgerService."""

from collections.abc import Sequence

from headgate.v1.ledger_service_pb2 import (
    GetHeadRequest,
    GetHeadResponse,
    LedgerBreak,
    VerifyLedgerRequest,
    VerifyLedgerResponse,
)
from headgate_server.core.errors import InvalidRequest
from headgate_server.core.ledger import Break
from headgate_server.core.model import Head, Scope
from headgate_server.core.reasons import Reason
from headgate_server.core.types import EventHash
from headgate_server.process.aside import aside
from headgate_server.process.metrics import Metrics
from headgate_server.reading.verify import verify
from headgate_server.rpc import decode, wire
from headgate_server.rpc.pages import page_size, page_token, resume_from
from headgate_server.rpc.pipeline.call import Call
from headgate_server.rpc.pipeline.method import AnyMethod, Method, Needs, Unary
from headgate_server.store import Ledgers, Proof

SERVICE = "headgate.v1.LedgerService"
_DEFAULT_LIMIT = 10_000
_LARGEST_LIMIT = 100_000


class LedgerServicer:
    """Shows and checks ledgers."""

    def __init__(self, ledgers: Ledgers, proof: Proof, metrics: Metrics):
        self._metrics = metrics
        self._ledgers = ledgers
        self._proof = proof

    def methods(self) -> Sequence[AnyMethod]:
        """Return the service's methods."""
        return (
            Method(
                service=SERVICE,
                name="GetHead",
                request=GetHeadRequest,
                response=GetHeadResponse,
                access=Needs((Scope.LEDGER_READ,)),
                kind=Unary(self.get_head),
            ),
            Method(
                service=SERVICE,
                name="VerifyLedger",
                request=VerifyLedgerRequest,
                response=VerifyLedgerResponse,
                access=Needs((Scope.LEDGER_READ,)),
                kind=Unary(self.verify_ledger),
            ),
        )

    async def get_head(self, call: Call, request: GetHeadRequest) -> GetHeadResponse:
        """Return the last link of the caller's workspace's ledger."""
        head = await self._ledgers.head(call.caller.workspace.id)
        response = GetHeadResponse(sequence=head.sequence, hash=head.hash.hex())
        if head.sequence:
            wire.set_timestamp(response.created_at, head.created_at)
        return response

    async def verify_ledger(self, call: Call, request: VerifyLedgerRequest) -> VerifyLedgerResponse:
        """Recompute a range of the caller's workspace's ledger."""
        workspace = call.caller.workspace
        created_from = getattr(request, "from")  # a field named as Python's keyword
        found = await verify(
            self._proof,
            workspace,
            created_from=decode.microseconds(created_from, "from") if request.HasField("from") else None,
            created_to=decode.microseconds(request.to, "to") if request.HasField("to") else None,
            limit=page_size(request.limit, _DEFAULT_LIMIT, _LARGEST_LIMIT, "limit"),
            after=resume_from(request.page_token, workspace.id, request),
            expected=_expected_head(request),
        )
        with aside("metrics"):
            self._metrics.ledger_checked(len(found.breaks))
        return VerifyLedgerResponse(
            valid=not found.breaks,
            events_checked=found.events_checked,
            breaks=map(_break_message, found.breaks),
            next_page_token=page_token(found.resume, workspace.id, request),
        )


def _expected_head(request: VerifyLedgerRequest) -> Head | None:
    if not request.expected_hash and not request.expected_sequence:
        return None
    try:
        expected = EventHash(bytes.fromhex(request.expected_hash))
    except ValueError:
        expected = EventHash(b"")
    if len(expected) != 32:
        raise InvalidRequest(
            "expected_hash must be 64 hexadecimal digits and come with expected_sequence.",
            reason=Reason.INVALID_EXPECTED_HEAD,
            field="expected_hash",
        )
    if request.expected_sequence < 0:
        raise InvalidRequest(
            "expected_sequence must not be negative.", reason=Reason.NEGATIVE, field="expected_sequence"
        )
    return Head(request.expected_sequence, expected, 0)


def _break_message(found: Break) -> LedgerBreak:
    return LedgerBreak(
        event_id="" if found.event_id is None else wire.id_text(found.event_id),
        sequence=found.sequence,
        type=found.type,
        expected_hash=found.expected,
        actual_hash=found.actual,
    )
