"""A bug in encoding one caller's answer stores nothing, and the store serves the next caller."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from headgate_server.core.model import Outcome
from headgate_server.core.settle import AnswerFailed
from headgate_server.store import Store
from tests.support.drafts import append, draft, request, submission


def _broken(outcomes: Sequence[Outcome]) -> bytes:
    raise TypeError("not serialisable")


async def test_nothing_of_the_group_is_stored(store: Store, workspace: int) -> None:
    keyed = request(workspace, "r", draft("b"))
    assert keyed.answer is not None
    failing = replace(keyed, answer=replace(keyed.answer, encode=_broken))
    with pytest.raises(AnswerFailed):
        await store.database.append([submission(workspace, draft("a")), failing])
    assert (await store.ledgers.head(workspace)).sequence == 0
    (outcome,) = await append(store, workspace, draft("a"))
    assert outcome.status == "accepted"
