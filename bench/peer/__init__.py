"""What one would otherwise write: a service with FastAPI, Pydantic, SQLAlchemy's ORM and uvicorn that takes batches of
events, with the same idempotency and the same result for each event. It has no ledger.

It is written as such services are, with what their manuals recommend: the body's events validated one by one by a
TypeAdapter, one look-up for all keys of a batch, one flush for all new rows (which SQLAlchemy sends as one INSERT), a
savepoint around it, and only if a concurrent request got in between a savepoint for each event. One commit a request.
"""
