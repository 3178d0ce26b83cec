"""Decide from the inputs of the gate and the policy whether the challenger is promoted."""
