"""What the HTTP benchmark is compared with: the same model in scikit-learn on NumPy, behind two usual servers.

Both handlers do less than the rig: stored values come from a dictionary, nothing is checked beyond
types, nothing is logged.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.benchmarks import rig

STORED = np.random.default_rng(1).normal(size=(100, 16)).astype(np.float32)


def _vector(card_id: int, merchant_id: int, raw: list[float]) -> NDArray[np.float32]:
    stored = STORED[(card_id + merchant_id) % len(STORED)]
    return np.concatenate([stored[:15], np.array(raw, dtype=np.float32), stored[15:]]).reshape(1, -1)


def fastapi_app() -> Any:
    """Return a bare FastAPI application."""
    from fastapi import FastAPI
    from pydantic import BaseModel

    model, _ = rig.fitted()

    class Payment(BaseModel):
        card_id: int
        merchant_id: int
        amount: float
        lat: float
        lon: float
        hour: float

    app = FastAPI()

    async def predict(p: Payment) -> dict[str, float]:
        row = _vector(p.card_id, p.merchant_id, [p.amount, p.lat, p.lon, p.hour])
        return {"value": float(model.predict_proba(row)[0, 1])}

    # The annotation is a local class: FastAPI cannot resolve its name from a string.
    predict.__annotations__["p"] = Payment
    app.post("/predict")(predict)
    return app


def bento_service() -> Any:
    """Return a plain BentoML service with one `@bentoml.api`."""
    import bentoml

    model, _ = rig.fitted()

    class Plain:
        def predict(self, card_id: int, merchant_id: int, amount: float, lat: float, lon: float, hour: float) -> float:
            row = _vector(card_id, merchant_id, [amount, lat, lon, hour])
            return float(model.predict_proba(row)[0, 1])

    Plain.predict.__annotations__ = {
        **dict.fromkeys(rig.REQUEST, float),
        "card_id": int,
        "merchant_id": int,
        "return": float,
    }
    Plain.predict = bentoml.api(Plain.predict)  # type: ignore[method-assign]
    return bentoml.service(name="plain", workers=1)(Plain)


def serve_fastapi(port: int) -> None:
    """Run the FastAPI peer on uvicorn with the fast loop and parser."""
    import uvicorn

    uvicorn.run(
        fastapi_app(),
        host="127.0.0.1",
        port=port,
        log_level="warning",
        access_log=False,
        loop="uvloop",
        http="httptools",
    )


if __name__ == "__main__":
    serve_fastapi(int(sys.argv[1]))
