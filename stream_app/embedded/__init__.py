"""Redis and Kafka as child processes, for trials and tests."""
