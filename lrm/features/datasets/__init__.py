"""The built-in data sets: each module turns published files into a data folder (docs/artifacts.md, section 1)."""
