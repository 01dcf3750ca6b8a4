"""The fields that REST's JSON leaves out where they are empty. The printer and the OpenAPI document go by this table.

It imports nothing: the document is made before the generated code exists.
"""

LEFT_OUT_EMPTY = {
    "headgate.v1.EventResult": {"id", "sequence", "event_hash", "warnings"},
    "headgate.v1.EventError": {"differing_fields"},
    "headgate.v1.Rejection": {"cut", "event_id"},
    "headgate.v1.StoredEvent": {"source", "subject", "delivery", "attributes_json"},
    "headgate.v1.Destination": {"start", "state_reason", "last_error"},
    "headgate.v1.Webhook": {"headers", "secret"},
}
"""Fields that are left out if they are empty, because empty means that there is no such value."""
