"""gRPC: a servicer for each service, and the pipeline around them."""
