"""Measure each signal: what it is worth, costs and keeps in its tokens, and whether it leaks the target."""
