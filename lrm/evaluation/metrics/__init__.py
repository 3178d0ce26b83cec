"""Compute metrics, their bootstrap intervals and calibration."""
