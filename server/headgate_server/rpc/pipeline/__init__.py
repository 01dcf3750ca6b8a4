"""The pipeline of every RPC: one chain, from the bytes of a request to the bytes of its answer."""
