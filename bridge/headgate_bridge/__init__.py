"""The HTTP side of Headgate: the real Envoy, run from envoy.yaml."""

from headgate_bridge.config import BridgeConfig, BridgeError, render
from headgate_bridge.envoy import Envoy

__all__ = ["BridgeConfig", "BridgeError", "Envoy", "render"]
