"""The generated text that the bundled model is trained on."""
