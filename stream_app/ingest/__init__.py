"""From records of a topic to segments in the store."""
