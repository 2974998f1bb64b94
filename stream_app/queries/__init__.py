"""From a query to its answer, through Kafka or Redis pub/sub."""
