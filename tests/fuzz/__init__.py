"""Foreign text, damaged on purpose."""
