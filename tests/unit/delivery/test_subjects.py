"""Names in NATS: streams, prefixes, subjects, URLs."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headgate_server.delivery.jetstream import check_prefix, check_stream, covers, subject_of
from headgate_server.delivery.nats_connection import urls_of


@pytest.mark.parametrize(
    ("event_type", "subject"),
    [
        ("order.placed", "orders.order.placed"),
        ("Order_Placed-2", "orders.Order_Placed-2"),
        ("a b", "orders.a%20b"),
        ("*", "orders.%2A"),
        (">", "orders.%3E"),
        ("a.>", "orders.a.%3E"),
        ("100%", "orders.100%25"),
        ("größe", "orders.gr%C3%B6%C3%9Fe"),
        (".a..b.", "orders.%.a.%.b.%"),
        ("$JS.API", "orders.%24JS.API"),
        ("a\r\nPUB x", "orders.a%0D%0APUB%20x"),
    ],
)
def test_a_type_becomes_a_subject(event_type: str, subject: str) -> None:
    assert subject_of("orders", event_type) == subject


@given(st.tuples(*[st.text(st.sampled_from("a.%2> é"), min_size=1) | st.text(min_size=1)] * 2))
def test_different_types_have_different_subjects_and_all_are_below_the_prefix(types: tuple[str, str]) -> None:
    try:
        subjects = [subject_of("orders", one) for one in types]
    except UnicodeEncodeError:
        return
    assert (subjects[0] == subjects[1]) == (types[0] == types[1])
    for subject in subjects:
        assert subject.isascii()
        assert subject.startswith("orders.")
        assert all(subject.split("."))
        assert not set(subject) & set("*> \r\n\t")


@pytest.mark.parametrize(
    ("wide", "covered"),
    [
        ("orders.>", True),
        (">", True),
        ("*.>", True),
        ("orders.*", False),
        ("orders.*.>", False),
        ("orders", False),
        ("orders.placed", False),
        ("other.>", False),
        ("orders.eu.>", False),
    ],
)
def test_whether_a_subject_takes_all_below_a_prefix(wide: str, covered: bool) -> None:
    assert covers(wide, "orders.>") is covered


def test_a_prefix_may_have_several_parts() -> None:
    assert covers("shop.>", "shop.orders.>")
    assert covers("shop.*.>", "shop.orders.>")
    assert not covers("shop.orders", "shop.orders.>")


@pytest.mark.parametrize("name", ["ORDERS", "orders-2", "a_b", "x" * 255])
def test_a_stream_has_a_plain_name(name: str) -> None:
    assert check_stream(name) == name


@pytest.mark.parametrize("name", ["", "a.b", "a b", "*", ">", "a/b", "a\\b", "größe", "x" * 256, "a\n"])
def test_other_names_of_streams_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="a stream's name has"):
        check_stream(name)


@pytest.mark.parametrize("prefix", ["orders", "shop.orders", "a-b_c.2"])
def test_a_prefix_is_one_or_more_plain_parts(prefix: str) -> None:
    assert check_prefix(prefix) == prefix


@pytest.mark.parametrize(
    "prefix", ["", ".", "a.", ".a", "a..b", "*", "a.>", "$JS.API", "$SYS", "_INBOX.x", "a b", "a\n", "x" * 256]
)
def test_other_prefixes_are_refused(prefix: str) -> None:
    with pytest.raises(ValueError, match="a prefix of subjects has"):
        check_prefix(prefix)


@pytest.mark.parametrize(
    "text", ["nats://127.0.0.1:4222", "tls://a.example", "nats://u:p@a.example,nats://b.example:1"]
)
def test_urls_of_nats_are_taken(text: str) -> None:
    assert urls_of(text) == text


@pytest.mark.parametrize("text", ["", "127.0.0.1:4222", "http://s3cret@a.example", "nats://", "nats://a,,nats://b"])
def test_other_urls_are_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(ValueError, match="looks like nats://host:4222") as refused:
        urls_of(text)
    assert "s3cret" not in str(refused.value)
