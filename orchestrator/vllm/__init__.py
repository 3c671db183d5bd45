"""What kprof knows of vLLM besides its log: arguments, defaults by version, metrics, model shapes, devices."""
