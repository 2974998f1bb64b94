"""What benchmarks share: workers, timing, made-up text, hardware."""
