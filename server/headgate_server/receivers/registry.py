"""The receivers that Headgate serves. To add one, add it here."""

from collections.abc import Mapping

from headgate_server.receivers import Receiver

_ALL: tuple[Receiver, ...] = ()

RECEIVERS: Mapping[str, Receiver] = {receiver.name: receiver for receiver in _ALL}
