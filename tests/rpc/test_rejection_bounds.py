"""Rejections: how many are kept, for how long, and what happens at the stop."""

from uuid import UUID

from headgate.v1.event_pb2 import Event
from headgate_server.access import admin
from headgate_server.ingest.rejections import RejectionConfig
from tests.support import database
from tests.support.calls import event, statuses
from tests.support.inprocess import serving
from tests.support.marks import on_sqlite
from tests.support.rejection_desk import Desk
from tests.support.rejections import DAY, MINUTE, rejection
from tests.support.waiting import until


async def test_waiting_rejections_are_written_at_the_stop(store_url: str) -> None:
    async with serving(store_url) as service, service.caller() as caller:
        await caller.batch(*[Event(source="s")] * 300)
    async with serving(store_url) as service, service.caller() as caller:
        assert len((await Desk(caller).page(page_size=1_000)).rejections) == 300


async def test_only_the_newest_are_kept_and_a_flood_is_counted(store_url: str) -> None:
    config = RejectionConfig(most=5, burst=8, per_second=0.0)
    async with serving(store_url, rejections=config) as service, service.caller() as caller:
        desk = Desk(caller)
        await caller.batch(*[Event(source=f"s{number}") for number in range(20)])

        async def trimmed() -> bool:
            page = await desk.page()
            return (len(page.rejections), page.omitted) == (5, 12)

        await until(trimmed)
        found = await desk.seen(5)
        assert [Event.FromString(each.event_base64).source for each in found] == ["s3", "s4", "s5", "s6", "s7"]


async def test_old_rejections_are_purged(store_url: str) -> None:
    async with admin.opened(store_url) as store:
        workspace = (await store.directory.create_workspace("acme")).id
        now = await store.ledgers.now()
        old, young = rejection(workspace, now - 3 * DAY - MINUTE), rejection(workspace, now - 3 * DAY + 60 * MINUTE)
        await store.rejections.keep([old, young], {})
    async with serving(store_url, rejections=RejectionConfig(days=3)) as service, service.caller() as caller:
        desk = Desk(caller)

        async def purged() -> bool:
            return [UUID(each.id).bytes for each in (await desk.page()).rejections] == [young.id]

        await until(purged)


@on_sqlite
async def test_off(store_url: str) -> None:
    async with serving(store_url) as service, service.caller() as caller:
        await caller.batch(Event(source="before"))
        await Desk(caller).seen(1)
    async with serving(store_url, rejections=RejectionConfig(most=0)) as service, service.caller() as caller:
        await caller.batch(Event(source="s"))
    async with serving(store_url) as service, service.caller() as caller:
        # Earlier rejections stay until their days are over.
        (rejection,) = await Desk(caller).seen(1)
        assert Event.FromString(rejection.event_base64).source == "before"


async def test_an_answer_does_not_fail_with_the_rejections(store_url: str) -> None:
    async with serving(store_url) as service, service.caller() as caller:
        await database.execute(service.url, "ALTER TABLE rejections RENAME TO elsewhere")
        for _ in range(3):
            assert statuses(await caller.batch(event(), Event(source="s"))) == ["accepted", "rejected"]
