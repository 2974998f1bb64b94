"""Ranking: how segments are ranked, what of the evidence each ranker finds, and the figures."""
