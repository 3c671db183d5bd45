"""Kubernetes: credentials from the official client library, requests over aiohttp."""
