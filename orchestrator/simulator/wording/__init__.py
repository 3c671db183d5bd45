"""vLLM's sentences by release: pure functions of a version and numbers."""
