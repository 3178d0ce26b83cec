"""The commands of `pipeline.py` besides `run` and `compile`, one module each.

A module has `HELP`, one line, and `add(commands)`, which adds its parser and sets `execute`: a function that takes the
parsed arguments and returns the exit status.
"""

from local.commands import approve, backtest, history, prune, reproduce, rollback, status, steps, upload, watch

COMMANDS = (history, status, rollback, approve, reproduce, watch, backtest, steps, upload, prune)
