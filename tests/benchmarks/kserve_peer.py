"""KServe's Python server with a model of its own, run in its environment: ``python kserve_peer.py PORT MODEL``.

The runtime for scikit-learn is not published as a package; what it does is these few lines.
"""

from __future__ import annotations

import sys
from typing import Any

import joblib  # noqa: TID251 - the format that the peers load
import kserve
import numpy as np


class Peer(kserve.Model):
    """A classifier; answers the probability of class 1."""

    def __init__(self, path: str) -> None:
        super().__init__("peer")
        self._model = joblib.load(path)
        self.ready = True

    def predict(self, payload: Any, headers: Any = None, response_headers: Any = None) -> Any:
        """Answer ``{"instances": [[...]]}``."""
        rows = np.asarray(payload["instances"], dtype=np.float32)
        return {"predictions": self._model.predict_proba(rows)[:, 1].tolist()}


if __name__ == "__main__":
    server = kserve.ModelServer(http_port=int(sys.argv[1]), enable_grpc=False, enable_latency_logging=False)
    server.start([Peer(sys.argv[2])])
