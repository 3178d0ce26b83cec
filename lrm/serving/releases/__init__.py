"""Build a release, store it, fetch it, prove it and put it in service."""
