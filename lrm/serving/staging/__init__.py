"""Serve a trained model in a scratch place and compare its online answers with offline scores."""
