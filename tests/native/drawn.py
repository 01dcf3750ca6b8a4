"""Draws drafts for hypothesis."""

from hypothesis import strategies as st

from headgate_server.core.model import (
    Mismatch,
    Problem,
)
from headgate_server.core.reasons import Reason
from tests.support.drafts import BAD, draft

_KEYS = st.sampled_from([None, "a", "b", "c"])
_DRAFTS = st.builds(
    draft,
    _KEYS,
    st.fixed_dictionaries({"n": st.integers(0, 1)}),
    receiver=st.sampled_from(["native", "cloudevents", "roboflow"]),
    occurred_at=st.sampled_from([None, 0, 5]),
    on_mismatch=st.sampled_from(Mismatch),
    attributes=st.sampled_from([None, b'{"a":1}']),
)
_REFUSED = Problem(Reason.SCHEMA_MISMATCH, "data", "It does not match.")
SLOTS = st.lists(
    st.one_of(
        st.just(BAD),
        _DRAFTS,
        _DRAFTS.map(lambda one: one._replace(warnings=("w",))),
        _DRAFTS.map(lambda one: one._replace(refused=_REFUSED)),
    ),
    max_size=8,
)
