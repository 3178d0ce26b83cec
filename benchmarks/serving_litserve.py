"""The same model behind LitServe, as it starts out: python -m benchmarks.serving_litserve RELEASE PORT."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import litserve

from benchmarks.serving_peers import answering


class Api(litserve.LitAPI):  # type: ignore[misc]
    def setup(self, device: str) -> None:  # noqa: ARG002 - the library's signature
        self.answer = answering(Path(sys.argv[1]))

    def predict(self, x: dict[str, Any]) -> dict[str, Any]:
        return self.answer(x)


if __name__ == "__main__":
    server = litserve.LitServer(Api(api_path="/v1/recommend"), accelerator="cpu", workers_per_device=1)
    server.run(port=int(sys.argv[2]), host="127.0.0.1", generate_client_file=False, log_level="warning")
