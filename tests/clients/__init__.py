"""Clients of the service in other languages, run by `make test-clients`; and receivers of webhooks in JavaScript."""
