"""Hypothesis's settings for these tests."""

from hypothesis import settings

# No deadline, because the machine may be busy with other tests. No database, because tests write only to their own
# folders.
settings.register_profile("headgate", deadline=None, database=None)
settings.load_profile("headgate")
