"""A service of the usual kind: FastAPI, Pydantic, SQLAlchemy's ORM and uvicorn. It takes batches of events, with the
same idempotency and the same result for each event. It has no ledger.

It follows the recommendations of their manuals: a TypeAdapter validates the body's events one by one; a batch has one
look-up for all keys, one flush for all new rows (which SQLAlchemy sends as one INSERT), and one commit. If a concurrent
request stored one of the keys after the look-up, the batch is processed again.
"""
