"""Delivers stored events to a workspace's destinations: the settings of destinations, and the senders for each kind."""
