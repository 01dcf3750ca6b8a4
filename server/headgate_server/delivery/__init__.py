"""Taking stored events to where a workspace wants them: destinations, and the senders that reach them."""
