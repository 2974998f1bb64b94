"""How the bundled model was trained; not needed to use it."""
