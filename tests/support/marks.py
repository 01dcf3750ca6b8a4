"""Marks that several kinds of test use."""

import pytest

on_sqlite = pytest.mark.parametrize("store_url", ["sqlite"], indirect=True)
"""For tests that do not depend on the store: one store is enough."""

on_postgres = pytest.mark.parametrize("store_url", ["postgres"], indirect=True)
