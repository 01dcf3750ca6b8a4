"""The headers that a workspace may add to the requests of its webhook."""

import pytest

from headgate_server.delivery.extra_headers import check_headers


def test_headers_are_taken_in_their_order() -> None:
    headers = {"Authorization": "Bearer a b", "X-Team": "~!"}
    assert check_headers(headers) == [("Authorization", "Bearer a b"), ("X-Team", "~!")]
    assert check_headers({}) == []


@pytest.mark.parametrize(
    "name",
    [
        "Host",
        "content-length",
        "Content-Type",
        "Transfer-Encoding",
        "Connection",
        "Webhook-Id",
        "webhook-signature",
        "Proxy-Authorization",
        "Expect",
        "Upgrade",
        "TE",
        "Accept-Encoding",
        "User-Agent",
    ],
)
def test_headers_that_the_service_sets_are_refused(name: str) -> None:
    with pytest.raises(ValueError, match="is set by the service"):
        check_headers({name: "x"})


@pytest.mark.parametrize("name", ["", "a b", "a:b", "a\r\nHost", "ü", "a" * 101])
def test_a_name_is_a_token(name: str) -> None:
    with pytest.raises(ValueError, match="is not a header name"):
        check_headers({name: "x"})


@pytest.mark.parametrize("value", ["", " s3cret", "s3cret ", "s3cret\r\nHost: x", "s3cret\0", "s3crét", "s3cret" * 999])
def test_a_value_is_printable_and_never_quoted(value: str) -> None:
    with pytest.raises(ValueError, match="the value of the header X-Key") as refused:
        check_headers({"X-Key": value})
    assert "s3cr" not in str(refused.value)


def test_a_header_must_not_be_repeated() -> None:
    with pytest.raises(ValueError, match="is given twice"):
        check_headers({"X-Key": "1", "x-key": "2"})


def test_there_are_not_too_many() -> None:
    check_headers({f"X-{number}": "1" for number in range(20)})
    with pytest.raises(ValueError, match="more than 20"):
        check_headers({f"X-{number}": "1" for number in range(21)})
