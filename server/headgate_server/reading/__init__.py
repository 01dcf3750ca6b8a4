"""Reads stored events back, and proves that they are unchanged."""
