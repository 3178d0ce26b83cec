"""Decide from the evidence and the policy whether the challenger is promoted."""
