"""gRPC: one servicer per service, and the pipeline around them."""
