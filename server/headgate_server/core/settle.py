"""Decides the outcome of each event of a group, and links the new ones into their ledger. Pure: the stores do the I/O.

A store calls `Settlement` once per workspace of a group, under the lock of that workspace's head, with the rows that it
read under that lock. Then it writes the settlement's rows and commits.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from headgate_server.core import canonical, compiled, ledger, timestamps
from headgate_server.core.model import (
    STORED,
    UNLIMITED,
    Decision,
    Draft,
    Head,
    KeyReused,
    Link,
    Mismatch,
    Outcome,
    Problem,
    Replayed,
    RequestKey,
    Settled,
    Status,
    StoredAnswer,
    StoredEvent,
    Submission,
    Usage,
)
from headgate_server.core.randomness import draw
from headgate_server.core.reasons import Reason
from headgate_server.core.types import Dedupe, EventHash, WorkspaceId


def next_created_at(last: int, now: int) -> int:
    """Return the created_at of an event that is linked at `now` after one of `last`. It always increases, even if the
    clock goes back.
    """
    return max(now, last + 1)


def current_usage(created_at: int, counted: Usage) -> Usage:
    """Return the usage of the month of `created_at` (UTC). `counted` is the usage of the last counted month."""
    month, _ = timestamps.month(created_at)
    return Usage(counted.quota, month, counted.events if counted.month == month else 0)


class AnswerFailed(Exception):
    """An answer's `encode` failed, which is a bug. Stores settle before they commit, so nothing was stored."""


class _Savepoint(NamedTuple):
    """A settlement's state before an atomic submission."""

    rows: list[StoredEvent]
    superseded: list[Dedupe]
    known: dict[Dedupe, Link]
    head: Head
    clock: int
    usage: Usage


class Settlement:
    """The decisions on one workspace's submissions, in order.

    `known` maps each dedupe of the submissions to the stored event that holds it. `answers` maps (scope, key) of each
    of their request keys to the stored answer. `now` is the database's clock in microseconds. After `decide` was called
    for each submission, `head` is the new head, `usage` the new usage of the month, `rows` the new rows in ledger
    order, `superseded` the dedupes that stored rows must release before the new rows are written, and `new_answers` the
    answers to store.
    """

    def __init__(
        self,
        workspace_id: WorkspaceId,
        head: Head,
        known: Mapping[Dedupe, Link],
        answers: Mapping[tuple[str, str], StoredAnswer],
        now: int,
        usage: Usage = UNLIMITED,
    ):
        self.rows: list[StoredEvent] = []
        self.superseded: list[Dedupe] = []
        self.new_answers: list[tuple[RequestKey, bytes]] = []
        self._workspace_id = workspace_id
        self._known = dict(known)
        self._answers = dict(answers)
        self._sequence, self._hash, self._created_at = head
        self._clock = next_created_at(head.created_at, now)
        self._quota, self._month, self._used = current_usage(self._clock, usage)
        self._month_end = timestamps.month(self._clock)[1]

    @property
    def head(self) -> Head:
        """The last link so far."""
        return Head(self._sequence, self._hash, self._created_at)

    def decide(self, submission: Submission) -> Decision:
        """Decide one submission, and remember what it stores for those after it."""
        request = submission.request_key
        if request is not None:
            earlier = self._answers.get((request.scope, request.key))
            if earlier is not None:
                return Replayed(earlier.answer) if earlier.fingerprint == request.fingerprint else KeyReused()
        outcomes = self._decide_slots(submission)
        if submission.answer is None:
            return Settled(outcomes)
        # Also without a request key: if an answer cannot be made, it fails before the commit, and nothing is stored.
        answer = _encoded(submission.answer.encode, outcomes)
        if request is not None and not _is_refused(outcomes):
            self._answers[request.scope, request.key] = StoredAnswer(request.fingerprint, answer)
            self.new_answers.append((request, answer))
        return Settled(outcomes)

    def _decide_slots(self, submission: Submission) -> list[Outcome]:
        if not submission.atomic:
            return self._decide_each(submission.slots)
        savepoint = self._savepoint()
        outcomes = self._decide_each(submission.slots)
        if all(outcome.status in STORED for outcome in outcomes):
            return outcomes
        self._roll_back(savepoint)
        return [self._aborted(outcome) for outcome in outcomes]

    def _savepoint(self) -> "_Savepoint":
        """Return the state that deciding changes, so that it can be undone."""
        return _Savepoint(
            self.rows.copy(), self.superseded.copy(), self._known.copy(), self.head, self._clock, self.usage
        )

    def _roll_back(self, savepoint: "_Savepoint") -> None:
        """Undo what was decided since a savepoint, which is used up by this."""
        self.rows, self.superseded, self._known, head, self._clock, usage = savepoint
        self._sequence, self._hash, self._created_at = head
        self._quota, self._month, self._used = usage
        self._month_end = timestamps.month(self._clock)[1]

    def _decide_each(self, slots: Sequence[Draft | Problem]) -> list[Outcome]:
        randomness = draw(8 * len(slots))
        outcomes: list[Outcome] = []
        while (at := len(outcomes)) < len(slots):
            slot = slots[at]
            if isinstance(slot, Problem):
                outcomes.append(Outcome(Status.REJECTED, problem=slot))
            elif decided := self._decide_run(slots, at, randomness):
                outcomes += decided
            else:
                outcomes.append(self._decide_draft(slot, randomness[8 * at : 8 * at + 8]))
        return outcomes

    def _decide_run(self, slots: Sequence[Draft | Problem], start: int, randomness: bytes) -> list[Outcome]:
        """Decide the ordinary drafts from `start` on. The result is empty if the first one is not ordinary."""
        most = self._month_end - self._clock
        if self._quota is not None:
            most = min(most, self._quota - self._used)
        place = (self._workspace_id, self._sequence, self._hash, self._clock, most)
        run = compiled.decide_run(slots, start, randomness, self._known, *place)
        outcomes, rows, last = run or decide_run(slots, start, randomness, self._known, *place)
        if rows:
            self.rows += rows
            self._advance(len(rows), last)
        return outcomes

    def _aborted(self, outcome: Outcome) -> Outcome:
        """Return the outcome after its submission was undone. It must not refer to an event that is not stored."""
        if outcome.status in STORED:
            return Outcome(Status.ABORTED, problem=ABORTED, warnings=outcome.warnings)
        if outcome.link is not None and outcome.link.sequence > self._sequence:
            return outcome._replace(link=None)
        return outcome

    def _decide_draft(self, draft: Draft, randomness: bytes) -> Outcome:
        dedupe = draft.dedupe
        earlier = None if dedupe is None else self._known.get(dedupe)
        if earlier is not None:
            if draft.on_mismatch is Mismatch.DUPLICATE or _same_content(draft, earlier):
                return Outcome(Status.DUPLICATE, earlier, None, draft.warnings)
            if draft.on_mismatch is Mismatch.CONFLICT:
                return Outcome(Status.CONFLICT, earlier, CONFLICT, draft.warnings)
            if draft.on_mismatch is Mismatch.CONFLICT_UNLESS_TIME:
                return _compared_without_time(draft, earlier)
        if draft.refused is not None:
            return Outcome(Status.REJECTED, None, draft.refused, draft.warnings)
        if self._quota is not None and self._used >= self._quota:
            return Outcome(Status.REJECTED, None, QUOTA_EXCEEDED, draft.warnings)
        if earlier is None or dedupe is None:
            return Outcome(Status.ACCEPTED, self._link(draft, randomness), None, draft.warnings)
        self._supersede(dedupe, earlier)
        return Outcome(Status.REPLACED, self._link(draft, randomness), None, draft.warnings)

    def _link(self, draft: Draft, randomness: bytes) -> Link:
        row, link = _linked(draft, self._workspace_id, self._sequence + 1, self._hash, self._clock, randomness)
        self.rows.append(row)
        self._advance(1, link.event_hash)
        if draft.dedupe is not None:
            self._known[draft.dedupe] = link
        return link

    def _supersede(self, dedupe: Dedupe, earlier: Link) -> None:
        """Make the event that holds `dedupe` release it: a stored row, or a new row of this group."""
        first_new = self._sequence - len(self.rows) + 1
        if earlier.sequence >= first_new:
            index = earlier.sequence - first_new
            self.rows[index] = self.rows[index]._replace(dedupe=None)
        else:
            self.superseded.append(dedupe)

    @property
    def usage(self) -> Usage:
        """The quota and the stored events of the month (UTC) of the last event's created_at."""
        return Usage(self._quota, self._month, self._used)

    def _advance(self, count: int, last: EventHash) -> None:
        """Move behind so many new events. The next one's created_at may lie in another month."""
        self._sequence += count
        self._hash = last
        self._clock += count
        self._created_at = self._clock - 1
        self._used += count
        if self._clock >= self._month_end:
            self._month, self._month_end = timestamps.month(self._clock)
            self._used = 0


def decide_run(
    slots: Sequence[Draft | Problem],
    start: int,
    randomness: bytes,
    known: dict[Dedupe, Link],
    workspace_id: WorkspaceId,
    sequence: int,
    previous: EventHash,
    clock: int,
    most: int,
) -> compiled.Run:
    """Decide the slots from `start` on, up to the first that is not ordinary. Return the outcomes, the new rows, and
    the hash of the last link. The new links are added to `known`.

    Ordinary are a draft that is linked as it is, and one whose identity an event of the same content has. At most
    `most` drafts are linked; the first of them at `clock` and with the sequence after `sequence`. The randomness of a
    slot is the eight bytes at its position. The compiled core has the same function.
    """
    outcomes: list[Outcome] = []
    rows: list[StoredEvent] = []
    for index in range(start, len(slots)):
        draft = slots[index]
        if isinstance(draft, Problem):
            break
        dedupe = draft.dedupe
        earlier = None if dedupe is None else known.get(dedupe)
        if earlier is not None:
            if not _same_content(draft, earlier):
                break
            outcomes.append(Outcome(Status.DUPLICATE, earlier, None, draft.warnings))
            continue
        if draft.refused is not None or len(rows) >= most:
            break
        sequence += 1
        row, link = _linked(draft, workspace_id, sequence, previous, clock, randomness[8 * index : 8 * index + 8])
        rows.append(row)
        clock += 1
        previous = link.event_hash
        if dedupe is not None:
            known[dedupe] = link
        outcomes.append(Outcome(Status.ACCEPTED, link, None, draft.warnings))
    return outcomes, rows, previous


def _linked(
    draft: Draft, workspace_id: WorkspaceId, sequence: int, previous: EventHash, created_at: int, randomness: bytes
) -> tuple[StoredEvent, Link]:
    """Link a draft after the event with the hash `previous`."""
    event_id = ledger.event_id(created_at, randomness)
    event_hash = ledger.event_hash(
        previous, sequence, created_at, event_id, draft.identity, draft.commitment, draft.receiver
    )
    row = draft.stored(workspace_id, event_id, sequence, created_at, event_hash)
    return row, Link(event_id, sequence, created_at, event_hash, draft.salt, draft.commitment, draft.occurred_at)


CONFLICT = Problem(
    Reason.IDEMPOTENCY_CONFLICT,
    "idempotency_key",
    "Another event with other content is stored under this idempotency key.",
)
ID_CONFLICT = Problem(
    Reason.IDEMPOTENCY_CONFLICT, "id", "Another event with other content is stored under this source and id."
)
ABORTED = Problem(
    Reason.ABORTED,
    "",
    "The event is valid; nothing was stored because the call is atomic and another event failed.",
    retryable=True,
)
QUOTA_EXCEEDED = Problem(
    Reason.QUOTA_EXCEEDED, "", "The workspace has stored as many events as its quota allows this month.", retryable=True
)


_OF_THE_MOMENT = frozenset(
    {Reason.QUOTA_EXCEEDED, Reason.SCHEMA_MISMATCH, Reason.SCHEMA_TOO_COSTLY, Reason.UNKNOWN_EVENT_TYPE}
)
"""The reasons that may be over when the same request is sent again: in another month, or with another schema."""


def _is_refused(outcomes: Sequence[Outcome]) -> bool:
    """Whether no event of a request is stored, and one only for now. When the request is sent again, it must not get
    this answer again.
    """
    return not any(outcome.status in STORED for outcome in outcomes) and any(
        outcome.problem is not None and outcome.problem.reason in _OF_THE_MOMENT for outcome in outcomes
    )


def _encoded(encode: Callable[[Sequence[Outcome]], bytes], outcomes: Sequence[Outcome]) -> bytes:
    try:
        return encode(outcomes)
    except Exception as error:
        raise AnswerFailed("the answer to a request could not be encoded") from error


def _same_content(draft: Draft, earlier: Link) -> bool:
    return ledger.commitment(earlier.salt, draft.canonical) == earlier.commitment


def _compared_without_time(draft: Draft, earlier: Link) -> Outcome:
    """Return the outcome of a draft whose identity an event with other content has. It is compared with that event's
    own time in place of its own.
    """
    content = canonical.content(
        draft.type, draft.source, draft.subject, earlier.occurred_at, draft.data, draft.attributes
    )
    if ledger.commitment(earlier.salt, content) != earlier.commitment:
        return Outcome(Status.CONFLICT, earlier, ID_CONFLICT, draft.warnings)
    stored = "no time" if earlier.occurred_at is None else f"the time {timestamps.format(earlier.occurred_at)}"
    warning = f"Only the time differs: the event was stored with {stored}, which is kept."
    return Outcome(Status.DUPLICATE, earlier, None, (*draft.warnings, warning))
