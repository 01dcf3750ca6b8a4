"""How hypothesis runs here."""

from hypothesis import settings

# No deadline, since the machine may be busy with other tests; no database, since tests write to their own folders
# only.
settings.register_profile("headgate", deadline=None, database=None)
settings.load_profile("headgate")
