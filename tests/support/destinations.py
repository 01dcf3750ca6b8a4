"""Makes destinations for tests."""

from typing import Any

from headgate_server.core.destinations import EventFilter, Ordering, Secrets, Status, Target, Webhook
from headgate_server.store import Store
from headgate_server.store.destinations import BEGINNING, NewDestination


def new(name: str = "crm", **values: Any) -> NewDestination:
    """Return a destination before it is made: a webhook of every event, from the beginning."""
    target: Target = values.pop("target", None) or Webhook(url=values.pop("url", "https://example.com/hook"))
    wanted = {
        "filter": EventFilter(),
        "ordering": Ordering.PARALLEL,
        "secrets": Secrets(current="whsec_c2VjcmV0"),
        "start": BEGINNING,
    }
    return NewDestination(name=name, target=target, **{**wanted, **values})


async def made(store: Store, workspace: int, name: str = "crm", **values: Any) -> Status:
    """Make a destination."""
    return await store.destinations.create(workspace, new(name, **values))
