"""A pretend `vllm serve`: computes what vLLM would print and serve, so that kprof can run without accelerators."""
