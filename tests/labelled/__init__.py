"""Logs that somebody labelled by hand, kept outside the project."""
