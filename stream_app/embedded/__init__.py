"""Redis and Kafka as child processes, for demos and tests."""
