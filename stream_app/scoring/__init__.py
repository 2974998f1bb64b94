"""Scores segments: extends the scored range of every question, step by step."""
