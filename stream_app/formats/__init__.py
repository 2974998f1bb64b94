"""Formats: what an event of the tokens topic says: its streams, texts and times."""
