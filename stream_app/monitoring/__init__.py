"""Metrics, liveness and readiness of a worker over HTTP."""
