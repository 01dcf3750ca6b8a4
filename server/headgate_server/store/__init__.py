"""The store of the ledgers: a database and its topics. Each topic is one file with its promise and its statements.
`tests/contract` checks the promises on every database.
"""

from copy import copy
from typing import Self

from headgate_server.core.audit import Actor
from headgate_server.store.answers import Answers
from headgate_server.store.audit import Audit
from headgate_server.store.cursors import Cursors
from headgate_server.store.database import Database, DataRefused
from headgate_server.store.deliveries import Deliveries
from headgate_server.store.destinations import Destinations
from headgate_server.store.directory import Directory
from headgate_server.store.event_types import EventTypes
from headgate_server.store.leases import Leases
from headgate_server.store.ledgers import Ledgers
from headgate_server.store.limits import Limits
from headgate_server.store.managed import ManagedWorkspaces
from headgate_server.store.matching import Matching
from headgate_server.store.measures import Measures
from headgate_server.store.migrate import Migrations
from headgate_server.store.probe import Probe
from headgate_server.store.proof import Proof
from headgate_server.store.properties import Properties
from headgate_server.store.rejections import Rejections
from headgate_server.store.survey import Survey
from headgate_server.store.transfer import Transfer

__all__ = [
    "Answers",
    "Audit",
    "Cursors",
    "DataRefused",
    "Database",
    "Deliveries",
    "Destinations",
    "Directory",
    "EventTypes",
    "Leases",
    "Ledgers",
    "Limits",
    "ManagedWorkspaces",
    "Matching",
    "Measures",
    "Migrations",
    "Probe",
    "Proof",
    "Properties",
    "Rejections",
    "Store",
    "Survey",
    "Transfer",
]


class Store:
    """A database and its topics. Code that needs one topic takes that topic, not the whole store."""

    def __init__(self, database: Database):
        self.database = database
        self.ledgers = Ledgers(database)
        self.directory = Directory(database)
        self.limits = Limits(database)
        self.audit = Audit(database)
        self.answers = Answers(database)
        self.leases = Leases(database)
        self.cursors = Cursors(database)
        self.destinations = Destinations(database)
        self.deliveries = Deliveries(database)
        self.matching = Matching(database)
        self.measures = Measures(database)
        self.rejections = Rejections(database)
        self.event_types = EventTypes(database)
        self.managed = ManagedWorkspaces(database, self.directory, self.limits, self.event_types)
        self.probe = Probe(database)
        self.proof = Proof(database)
        self.properties = Properties(database)
        self.migrations = Migrations(database)
        self.survey = Survey(database)
        self.transfer = Transfer(database)

    def by(self, actor: Actor) -> Self:
        """Return the same store, for the acts of an actor."""
        acting = copy(self)
        for name in ("directory", "limits", "destinations", "event_types", "managed", "audit"):
            setattr(acting, name, getattr(self, name).by(actor))
        return acting

    async def close(self) -> None:
        """Finish the operations in progress and close the database."""
        await self.database.close()
