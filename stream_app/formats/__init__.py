"""Formats of input events: how to find the stream, the texts and the times in an event."""
