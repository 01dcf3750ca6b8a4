"""gRPC: one servicer per service, and what stands around them."""
