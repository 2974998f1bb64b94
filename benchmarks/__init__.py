"""Benchmarks: ratios measured inside one run. They time; the tests check."""
