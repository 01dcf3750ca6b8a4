"""A sender to JetStream connects only as the operator set it up, and says why it cannot."""

from pathlib import Path

import trustme

from headgate_server.delivery.attempt import Verdict
from headgate_server.delivery.jetstream import JetStream
from headgate_server.delivery.nats_connection import Nats, NatsConfig
from tests.delivery.conftest import render
from tests.support.jetstream import EVENTS, Make, delivered, every
from tests.support.nats import NatsServer, nats_server
from tests.support.natsidentities import Identities
from tests.support.waiting import until


async def test_without_a_server_it_fails_and_continues_when_there_is_one(server: NatsServer, jetstream: Make) -> None:
    sender = jetstream(server.url)
    server.stop()
    attempt = await sender.send(EVENTS[:5], 1)
    assert attempt.verdict is Verdict.FAILED
    assert attempt.detail.startswith("no connection to NATS: ")
    server.start()
    assert delivered(await sender.send(EVENTS[:5], 2))


async def test_without_jetstream_it_fails_with_a_reason(tmp_path: Path, jetstream: Make) -> None:
    with nats_server(tmp_path / "nats", jetstream=False) as server:
        attempt = await jetstream(server.url, timeout=1).send(EVENTS[:5], 1)
    assert attempt.verdict is Verdict.FAILED
    assert attempt.detail


async def test_without_a_url_the_reason_names_the_setting() -> None:
    sender = JetStream(Nats(NatsConfig()), stream="S", subject_prefix="s", owner="d", render=render, known=every)
    assert (await sender.send(EVENTS[:1], 1)).detail == "the service has no --nats-url"


async def test_tls_is_checked_against_the_operators_authority(tmp_path: Path, jetstream: Make) -> None:
    authority = trustme.CA()
    certificate = authority.issue_cert("127.0.0.1")
    key, chain, ca = tmp_path / "key.pem", tmp_path / "chain.pem", tmp_path / "ca.pem"
    certificate.private_key_pem.write_to_path(key)
    certificate.cert_chain_pems[0].write_to_path(chain)
    authority.cert_pem.write_to_path(ca)
    with nats_server(tmp_path / "nats", f'tls {{ cert_file: "{chain}", key_file: "{key}" }}') as server:
        url = server.url.replace("nats:", "tls:")
        assert delivered(await jetstream(url, ca=ca).send(EVENTS[:5], 1))
        refused = await jetstream(url).send(EVENTS[:5], 1)
    assert refused.verdict is Verdict.FAILED
    assert "certificate" in refused.detail


async def test_a_wrong_password_is_a_failure_that_does_not_show_it(tmp_path: Path, jetstream: Make) -> None:
    with nats_server(tmp_path / "nats", "authorization { user: headgate, password: s3cret }") as server:
        url = server.url.replace("//", "//headgate:{}@")
        assert delivered(await jetstream(url.format("s3cret")).send(EVENTS[:5], 1))
        wrong = jetstream(url.format("wr0ng"))

        async def says_why() -> bool:
            refused = await wrong.send(EVENTS[:5], 1)
            assert refused.verdict is Verdict.FAILED
            assert "wr0ng" not in refused.detail
            return "Authorization Violation" in refused.detail

        # The server resets the connection after its refusal, and sometimes the refusal does not arrive.
        await until(says_why)


async def test_a_credentials_file_is_accepted(tmp_path: Path, jetstream: Make) -> None:
    identities = Identities()
    file = tmp_path / "headgate.creds"
    file.write_text(identities.credentials("headgate"))
    with nats_server(tmp_path / "nats", identities.settings) as server:
        assert delivered(await jetstream(server.url, credentials=file).send(EVENTS[:5], 1))
        for wrong in (None, tmp_path / "missing.creds"):
            refused = await jetstream(server.url, credentials=wrong).send(EVENTS[:5], 1)
            assert refused.verdict is Verdict.FAILED
            assert refused.detail.startswith("no connection to NATS: ")


async def test_a_forbidden_subject_is_a_failure_with_a_reason(tmp_path: Path, jetstream: Make) -> None:
    allowed = 'publish: { deny: "orders.>" }'
    users = f"authorization {{ users: [ {{ user: a, password: b, permissions: {{ {allowed} }} }} ] }}"
    with nats_server(tmp_path / "nats", users) as server:
        attempt = await jetstream(server.url.replace("//", "//a:b@"), timeout=0.5).send(EVENTS[:5], 1)
    assert attempt.verdict is Verdict.FAILED
    assert "Permissions Violation for Publish" in attempt.detail or "permissions violation" in attempt.detail
