"""Our own server, both of its memories of so many MB: python -m benchmarks.serving_small MB [options of lrm.serving].

The bound of the decoded histories is an option of the server; that of the values read from the online store is not.
"""

from __future__ import annotations

import sys

from lrm.serving.__main__ import main
from lrm.serving.engine import features

if __name__ == "__main__":
    features.CACHE_BYTES = int(sys.argv[1]) * 2**20
    sys.exit(main(["--kv-cache-mb", sys.argv[1], *sys.argv[2:]]))
