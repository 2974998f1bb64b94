"""The state of streams in Redis: the only package that talks to Redis."""
