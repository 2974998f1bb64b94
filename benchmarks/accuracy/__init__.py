"""Whether the right segments are found and the right answers given."""
