"""Secrets stay where they are, foreign text does not drive the terminal, credentials go to one server only."""
