"""Formats: bytes of an event -> records."""
