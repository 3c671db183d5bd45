"""The memory model: what one rank of a vLLM engine needs, computed from shape, dtype, device and arguments."""
