"""The receivers that Headgate serves. To add one, add it here."""

from collections.abc import Mapping

from headgate_server.receivers import Receiver
from headgate_server.receivers.flokit import FloKit
from headgate_server.receivers.immutable import Immutable
from headgate_server.receivers.roboflow import Roboflow
from headgate_server.receivers.scrip import Scrip
from headgate_server.receivers.vibefollow import VibeFollow

_ALL: tuple[Receiver, ...] = (FloKit(), Immutable(), Roboflow(), Scrip(), VibeFollow())

VENDOR_SCOPES = tuple(sorted({scope for receiver in _ALL for scope in receiver.scopes}))
"""The scopes that a key may have besides `model.Scope`."""

RECEIVERS: Mapping[str, Receiver] = {receiver.name: receiver for receiver in _ALL}
