"""Speak HTTP around the engine: routes, body schemas, limits, load shedding, health and metrics."""
