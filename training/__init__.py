"""How the small model that comes with the package was made; not needed to use it."""
