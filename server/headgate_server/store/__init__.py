"""The store of the ledgers: a database and its topics. Each topic is one file with its promise and its statements.
`tests/contract` checks the promises on every database.
"""

from headgate_server.store.answers import Answers
from headgate_server.store.cursors import Cursors
from headgate_server.store.database import Database, DataRefused
from headgate_server.store.deliveries import Deliveries
from headgate_server.store.destinations import Destinations
from headgate_server.store.directory import Directory
from headgate_server.store.event_types import EventTypes
from headgate_server.store.leases import Leases
from headgate_server.store.ledgers import Ledgers
from headgate_server.store.limits import Limits
from headgate_server.store.matching import Matching
from headgate_server.store.measures import Measures
from headgate_server.store.migrate import Migrations
from headgate_server.store.probe import Probe
from headgate_server.store.proof import Proof
from headgate_server.store.properties import Properties
from headgate_server.store.rejections import Rejections

__all__ = [
    "Answers",
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
    "Matching",
    "Measures",
    "Migrations",
    "Probe",
    "Proof",
    "Properties",
    "Rejections",
    "Store",
]


class Store:
    """A database and its topics. Code that needs one topic takes that topic, not the whole store."""

    def __init__(self, database: Database):
        self.database = database
        self.ledgers = Ledgers(database)
        self.directory = Directory(database)
        self.limits = Limits(database)
        self.answers = Answers(database)
        self.leases = Leases(database)
        self.cursors = Cursors(database)
        self.destinations = Destinations(database)
        self.deliveries = Deliveries(database)
        self.matching = Matching(database)
        self.measures = Measures(database)
        self.rejections = Rejections(database)
        self.event_types = EventTypes(database)
        self.probe = Probe(database)
        self.proof = Proof(database)
        self.properties = Properties(database)
        self.migrations = Migrations(database)

    async def close(self) -> None:
        """Finish the operations in progress and close the database."""
        await self.database.close()
