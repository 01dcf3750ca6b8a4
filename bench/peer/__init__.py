"""What one would otherwise write: a service with FastAPI, Pydantic, SQLAlchemy's ORM and uvicorn that takes batches of
events, with the same idempotency and the same result for each event. It has no ledger.

It is written as such services are, with what their manuals recommend: the body's events validated one by one by a
TypeAdapter, one look-up for all keys of a batch, one flush for all new rows (which SQLAlchemy sends as one INSERT), one
commit a request. Where a concurrent request stored one of the keys after the look-up, the batch is done again.
"""
