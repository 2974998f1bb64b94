"""What any long-running process needs: retries, a watchdog, shutdown, logs, memory."""
