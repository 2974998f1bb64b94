"""What runs outside a worker and talks to it through Redis."""
