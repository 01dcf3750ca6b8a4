"""Version 1: messages, stubs and servicers, generated from proto/headgate/v1."""
