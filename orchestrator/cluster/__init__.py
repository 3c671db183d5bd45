"""Where points run: one small port, and its two adapters, Kubernetes and this machine."""
