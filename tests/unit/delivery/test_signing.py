"""The libraries of receivers verify our signatures."""

import json
import time
from base64 import b64decode, b64encode

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from standardwebhooks import Webhook, WebhookVerificationError

from headgate_server.delivery import signing
from tests.support.delivering import stored, verified_in_javascript

BODY = json.dumps({"type": "order.placed", "text": "größer 漢字 \U0001f600"}, ensure_ascii=False).encode()


def _signed(*keys: str, body: bytes = BODY, moment: int | None = None) -> dict[str, str]:
    now = time.time_ns() // 1000 if moment is None else moment
    return dict(signing.headers("id-1", now, body, [signing.read_key(key) for key in keys]))


def test_the_signature_is_the_one_of_the_specification() -> None:
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    headers = signing.headers(
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1_614_265_330_999_999,
        b'{"test": 2432232314}',
        [signing.read_key(secret)],
    )
    assert headers == [
        ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
        ("webhook-timestamp", "1614265330"),
        ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
    ]


def test_a_receiver_in_python_verifies_it() -> None:
    secret = signing.new_shared_key()
    assert Webhook(secret).verify(BODY, _signed(secret)) == json.loads(BODY)


def test_a_receiver_in_javascript_verifies_it() -> None:
    secret = signing.new_shared_key()
    assert verified_in_javascript(secret, _signed(secret), BODY) == json.loads(BODY)


@pytest.mark.parametrize("changed", ["webhook-id", "webhook-timestamp", "body", "secret"])
def test_every_change_is_detected(changed: str) -> None:
    secret = signing.new_shared_key()
    headers = _signed(secret)
    if changed.startswith("webhook-"):
        headers[changed] += "0" if changed == "webhook-id" else ".0"
    if changed == "webhook-timestamp":
        headers[changed] = str(int(time.time()) + 60)
    body = BODY + b" " if changed == "body" else BODY
    with pytest.raises(WebhookVerificationError):
        Webhook(signing.new_shared_key() if changed == "secret" else secret).verify(body, headers)


def test_while_a_secret_rotates_both_verify() -> None:
    old, new = signing.new_shared_key(), signing.new_shared_key()
    headers = _signed(new, old)
    for secret in (old, new):
        assert Webhook(secret).verify(BODY, headers) == json.loads(BODY)
        assert verified_in_javascript(secret, headers, BODY) == json.loads(BODY)


def test_an_ed25519_signature_is_verified_with_the_public_key_that_is_shown() -> None:
    key = signing.read_key(signing.new_private_key())
    headers = dict(signing.headers("id-1", 1_614_265_330_000_000, BODY, [key]))
    version, _, signature = headers["webhook-signature"].partition(",")
    assert version == "v1a"
    assert key.shown.startswith("whpk_")
    public = Ed25519PublicKey.from_public_bytes(b64decode(key.shown.removeprefix("whpk_")))
    public.verify(b64decode(signature), b"id-1.1614265330." + BODY)
    with pytest.raises(InvalidSignature):
        public.verify(b64decode(signature), b"id-1.1614265331." + BODY)


def test_a_receiver_with_a_shared_secret_ignores_an_ed25519_signature() -> None:
    private, secret = signing.new_private_key(), signing.new_shared_key()
    headers = _signed(private, secret)
    assert [item.partition(",")[0] for item in headers["webhook-signature"].split(" ")] == ["v1a", "v1"]
    assert Webhook(secret).verify(BODY, headers) == json.loads(BODY)


def test_new_keys_are_random_and_long_enough() -> None:
    assert signing.new_shared_key() != signing.new_shared_key()
    assert len(b64decode(signing.new_shared_key().removeprefix("whsec_"))) == 32
    assert len(b64decode(signing.new_private_key().removeprefix("whsk_"))) == 64


def test_a_key_is_read_as_it_was_written_and_shows_what_its_owner_gets() -> None:
    shared, private = signing.new_shared_key(), signing.new_private_key()
    assert (signing.read_key(shared).text, signing.read_key(shared).shown) == (shared, shared)
    assert signing.read_key(private).text == private
    seed = "whsk_" + b64encode(b64decode(private.removeprefix("whsk_"))[:32]).decode()
    assert signing.read_key(seed).shown == signing.read_key(private).shown


@pytest.mark.parametrize("make", [signing.new_shared_key, signing.new_private_key])
def test_a_key_does_not_show_in_its_repr(make: object) -> None:
    assert callable(make)
    text = make()
    assert text.partition("_")[2][:8] not in repr(signing.read_key(text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "begins with"),
        ("secret", "begins with"),
        ("whpk_" + "A" * 44, "begins with"),
        ("whsec_" + b64encode(b"x" * 23).decode(), "24 to 64 bytes, this one 23"),
        ("whsec_" + b64encode(b"x" * 65).decode(), "24 to 64 bytes, this one 65"),
        ("whsec_%%%", "base64"),
        ("whsec_ü", "base64"),
        ("whsk_" + b64encode(b"x" * 33).decode(), "32 or 64 bytes, this one 33"),
        ("whsk_" + b64encode(b"x" * 64).decode(), "do not belong together"),
    ],
)
def test_other_texts_are_refused_and_not_quoted(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        signing.read_key(text)
    assert text.partition("_")[2][:8] not in str(refused.value) or not text.partition("_")[2]


def test_the_id_of_a_message_is_the_events() -> None:
    event = stored(7)
    assert signing.message_id([event]).replace("-", "") == event.id.hex()


def test_the_id_of_a_batch_is_the_same_for_the_same_events_and_for_no_others() -> None:
    one, two, three = stored(1), stored(2), stored(3)
    batches = [[one, two, three], [one, three], [one, two], [two, three], [three, two, one]]
    ids = {signing.message_id(batch) for batch in batches}
    assert len(ids) == len(batches)
    assert signing.message_id([stored(1), stored(2), stored(3)]) in ids
    assert all("." not in one for one in ids)
