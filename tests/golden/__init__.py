"""Golden logs: one for each version of vLLM, made from the format strings of its sources."""
