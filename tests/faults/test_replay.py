"""kill -9 in the middle of replays: each rejected event is stored once, also those without a key."""

import asyncio
import json
import random

import grpc.aio

from headgate.v1.event_pb2 import Event
from headgate.v1.ingest_service_pb2 import BatchIngestRequest
from headgate.v1.rejection_service_pb2 import ListRejectionsRequest, ReplayRejectionsRequest, ReplayRejectionsResponse
from headgate.v1.rejection_service_pb2_grpc import RejectionServiceStub
from headgate_server.store.opening import open_store
from tests.support.service import Client, ServerProcess, make_key
from tests.support.waiting import until

KILLS = 4
EVENTS = 120


async def _set_quota(url: str, quota: int | None) -> None:
    store = await open_store(url)
    try:
        workspace = await store.directory.workspace("acme")
        assert workspace is not None
        await store.limits.set_quota(workspace.id, quota)
    finally:
        await store.close()


def _desk(client: Client) -> RejectionServiceStub:
    return RejectionServiceStub(client._channel)


async def _replay(client: Client, size: int) -> ReplayRejectionsResponse:
    request = ReplayRejectionsRequest(page_size=size)
    answer: ReplayRejectionsResponse = await _desk(client).ReplayRejections(request, metadata=client.metadata)
    return answer


async def _replay_until_killed(client: Client) -> None:
    try:
        while (await _replay(client, 7)).total:
            pass
    except grpc.aio.AioRpcError as error:
        if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
            raise


async def test_replays_that_were_killed_store_each_event_once(store_url: str) -> None:
    key = await make_key(store_url)
    await _set_quota(store_url, 0)
    async with ServerProcess(store_url) as server, Client(server.port, key) as client:
        events = [Event(type="t", data_json=b'{"n":%d}' % number) for number in range(EVENTS)]
        await client.ingest.BatchIngest(BatchIngestRequest(events=events), metadata=client.metadata)

        async def written() -> bool:
            request = ListRejectionsRequest(page_size=1_000)
            page = await _desk(client).ListRejections(request, metadata=client.metadata)
            return len(page.rejections) == EVENTS

        await until(written)
    await _set_quota(store_url, None)
    moments = random.Random(7)
    for _ in range(KILLS):
        server = await ServerProcess(store_url).__aenter__()
        async with Client(server.port, key) as client:
            replaying = asyncio.create_task(_replay_until_killed(client))
            await asyncio.sleep(moments.uniform(0.01, 0.12))
            await server.kill()
            await replaying
    async with ServerProcess(store_url) as server, Client(server.port, key) as client:
        while (await _replay(client, 50)).total:
            pass
        stored = await client.all_events()
    numbers = [json.loads(event.data_json)["n"] if event.data_json else event.data["n"] for event in stored]
    assert sorted(numbers) == list(range(EVENTS))
