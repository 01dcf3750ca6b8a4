"""Page tokens: opaque, and bound to the request that they were given for."""

from collections.abc import Callable

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from headgate.v1.event_service_pb2 import ListEventsRequest
from headgate.v1.ledger_service_pb2 import VerifyLedgerRequest
from headgate_server.core.errors import InvalidRequest
from headgate_server.rpc.pages import page_size, page_token, resume_from

ID = bytes(range(16))


def test_no_token_means_the_first_page_and_no_id_the_last() -> None:
    assert resume_from("", 1, ListEventsRequest()) is None
    assert page_token(None, 1, ListEventsRequest()) == ""


@given(
    st.binary(min_size=16, max_size=16), st.integers(1, 2**63 - 1), st.text(st.characters(exclude_categories=["Cs"]))
)
def test_a_token_leads_on_from_its_event(event_id: bytes, workspace_id: int, type_: str) -> None:
    request = ListEventsRequest(type=type_, newest_first=True)
    token = page_token(event_id, workspace_id, request)
    assert token.replace("-", "").replace("_", "").isalnum()
    assert resume_from(token, workspace_id, request) == event_id


def test_the_size_of_a_page_may_change_from_page_to_page() -> None:
    token = page_token(ID, 1, ListEventsRequest(page_size=5, type="t"))
    assert resume_from(token, 1, ListEventsRequest(page_size=50, page_token=token, type="t")) == ID
    token = page_token(ID, 1, VerifyLedgerRequest(limit=5))
    assert resume_from(token, 1, VerifyLedgerRequest(limit=7, page_token=token)) == ID


@pytest.mark.parametrize(
    "other",
    [
        ListEventsRequest(type="t2", source="s"),
        ListEventsRequest(type="t"),
        ListEventsRequest(type="t", source="s", subject="x"),
        ListEventsRequest(type="t", source="s", newest_first=True),
        ListEventsRequest(type="t", source="s", to=Timestamp(seconds=1)),
        ListEventsRequest(type="t", source="s", idempotency_key="k"),
        VerifyLedgerRequest(),
    ],
)
def test_a_token_is_refused_with_other_filters(other: ListEventsRequest | VerifyLedgerRequest) -> None:
    token = page_token(ID, 1, ListEventsRequest(type="t", source="s"))
    with pytest.raises(InvalidRequest) as refused:
        resume_from(token, 1, other)
    assert (refused.value.reason, refused.value.field) == ("INVALID_PAGE_TOKEN", "page_token")


def test_a_token_is_refused_in_another_workspace() -> None:
    token = page_token(ID, 1, ListEventsRequest())
    with pytest.raises(InvalidRequest):
        resume_from(token, 2, ListEventsRequest())


@pytest.mark.parametrize(
    "change",
    [
        lambda token: token[:-1],
        lambda token: token + "A",
        lambda token: token[1:] + token[0],
        lambda token: "x",
        lambda token: "%%%",
        lambda token: "é" * 32,
        lambda token: "A" * 100_000,
        lambda token: token.lower(),
    ],
)
def test_what_is_no_token_is_refused(change: Callable[[str], str]) -> None:
    token = page_token(ID, 1, ListEventsRequest())
    with pytest.raises(InvalidRequest) as refused:
        resume_from(change(token), 1, ListEventsRequest())
    assert refused.value.reason == "INVALID_PAGE_TOKEN"


@pytest.mark.parametrize(("asked", "given_"), [(0, 50), (1, 1), (1000, 1000), (1001, 1000), (2**31 - 1, 1000)])
def test_the_size_of_a_page(asked: int, given_: int) -> None:
    assert page_size(asked, 50, 1000) == given_


def test_a_negative_size_is_refused_by_the_name_of_its_field() -> None:
    with pytest.raises(InvalidRequest, match="limit must not be negative") as refused:
        page_size(-1, 50, 1000, "limit")
    assert (refused.value.reason, refused.value.field) == ("NEGATIVE", "limit")
