"""What a request may hold: one page for the server, which refuses more, and for the steps before it, which train on
nothing that could never be asked for.
"""

from __future__ import annotations

MAX_TEXT = 1000
"""Characters of a key or a category."""
MAX_BAG = 1000
"""Members of a bag."""
MIN_KEY, MAX_KEY = -(2**63), 2**63 - 1
"""Of a key that is a whole number."""
MAX_NUMBER = 3.4028234663852886e38
"""The largest number that a signal can hold, in float32."""
MAX_FIELDS = 200
"""Names that a request, a candidate or an event carries: signals and join keys."""
MAX_CANDIDATES = 2000
MAX_EXCLUDED = 2000
MAX_K = 1000
MAX_EVENTS = 100
MAX_BODY_BYTES = 2**20
