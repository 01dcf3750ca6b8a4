"""What must be set before gRPC is imported. The package imports this module first."""

import importlib.metadata
import os
import sys

FORK_SUPPORT = "GRPC_ENABLE_FORK_SUPPORT"
_NEEDS_NONE = (1, 80)
"""grpcio from this version on leaves a working child without the variable. With older ones calls of a child hang or
crash. With the variable, other channels of the process that are busy during a fork can hang in a child: it is not set
without need.
"""


def needs_fork_support(version: str) -> bool:
    """Whether this version of grpcio needs the variable, so that a child process can make calls."""
    parts = version.split(".")[:2]
    return all(part.isdigit() for part in parts) and tuple(map(int, parts)) < _NEEDS_NONE


if "grpc" not in sys.modules and needs_fork_support(importlib.metadata.version("grpcio")):
    os.environ.setdefault(FORK_SUPPORT, "1")
