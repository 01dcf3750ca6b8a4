"""The domain as values: events, validation, canonical form, hashes, decisions. No I/O, no clock."""
