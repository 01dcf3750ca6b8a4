"""Two server processes on one store, writers sending overlapping keys to both."""

import asyncio
import random
from collections import Counter

from headgate.v1.event_pb2 import Event
from headgate.v1.ingest_service_pb2 import BatchIngestRequest
from headgate.v1.ledger_service_pb2 import GetHeadRequest, VerifyLedgerRequest
from tests.support.service import Client, ServerProcess, make_key

WRITERS = 8
BATCHES = 25
BATCH = 20
KEYS = 1_000


async def _write(client: Client, seed: int) -> Counter[tuple[str, str]]:
    rng = random.Random(seed)
    seen: Counter[tuple[str, str]] = Counter()
    for _ in range(BATCHES):
        keys = [f"k{rng.randrange(KEYS)}" for _ in range(BATCH)]
        request = BatchIngestRequest(events=[Event(type="t", source="two", idempotency_key=key) for key in keys])
        response = await client.ingest.BatchIngest(request, metadata=client.metadata)
        seen.update((key, result.status) for key, result in zip(keys, response.results, strict=True))
    return seen


async def test_a_key_is_accepted_once_by_two_servers(store_url, tmp_path):
    key = await make_key(store_url)
    async with (
        ServerProcess(store_url, log=tmp_path / "one") as one,
        ServerProcess(store_url, log=tmp_path / "two") as two,
        Client(one.port, key) as first,
        Client(two.port, key) as second,
    ):
        writing = asyncio.gather(*(_write((first, second)[number % 2], number) for number in range(WRITERS)))
        # Commands beside the servers get their turn to write.
        for name in ("one", "two", "three"):
            assert (await make_key(store_url, name)).startswith("hg_")
        seen = sum(await writing, Counter())
        stored = await first.all_events()
        head = await second.ledger.GetHead(GetHeadRequest(), metadata=second.metadata)
        verified = await second.ledger.VerifyLedger(VerifyLedgerRequest(), metadata=second.metadata)
    keys = {key for key, _ in seen}
    assert {status for _, status in seen} == {"accepted", "duplicate"}
    assert all(seen[key, "accepted"] == 1 for key in keys)
    assert sum(seen.values()) == WRITERS * BATCHES * BATCH
    assert [event.sequence for event in stored] == list(range(1, len(keys) + 1))
    assert head.sequence == len(keys)
    assert verified.valid
    assert verified.events_checked == len(keys)
