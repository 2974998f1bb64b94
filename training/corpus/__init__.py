"""The made-up text the bundled model is trained on."""
