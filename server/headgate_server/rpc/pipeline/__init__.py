"""What every call of every RPC passes: one chain, from the bytes of a request to those of its answer."""
