"""A worker under many streams, bursts and long runs."""
