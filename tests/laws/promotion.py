"""Promotion under load: four releases whose views and on-demand sources differ, clients that do not stop, and a judge.

The judge knows each release by literal formulas of its own: nothing that serves is used to say what was right.
"""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import msgspec
import numpy as np

from windrow.features.contract import Contract, Lookup, OnDemand
from windrow.features.on_demand import load_functions
from windrow.models.bundle import MODEL_FILES, golden_pairs
from windrow.models.registry import Registry
from windrow.models.release import DatasetRef, GateResult, Release, sha256
from windrow.models.runtime import MATRIX_INPUT
from windrow.schema import Field
from windrow.settings import Settings
from windrow.stores.lake import Lake
from windrow.stores.log import PredictionLog
from windrow.stores.metadata import Metadata
from windrow.stores.online.store import Row, open_online

NOW = 1_000_000_000
CARDS, CONNECTIONS = 50, 5
SERVICE = "swift"

_LIMIT = Lookup("card_v1", "f", {"card_id": "card_id"}, {"limit": "limit"}, {"limit": "float64"})
_PLACE = Lookup("card_v1", "f", {"card_id": "card_id"}, {"card.x": "x"}, {"card.x": "float64"})
_AGE = Lookup("card_v2", "f", {"card_id": "card_id"}, {"age": "age"}, {"age": "float64"})
_AWAY = {"x": "request.x", "y": "stored.card.x"}


class Variant(NamedTuple):
    """One release: what it reads and computes, its weights, and its vector by a formula of the judge's own."""

    lookups: tuple[Lookup, ...]
    inputs: dict[str, str]
    source: str
    features: tuple[str, ...]
    weights: dict[str, float]
    bias: float
    vector: Callable[[Mapping[str, float]], dict[str, float]]


def _module(arguments: str, formula: str) -> str:
    return f"import numpy as np\n\n\ndef made({arguments}):\n    return {formula}\n"


# `v` holds what is true of a request: card, amount, x, and the stored limit, place and age of its card.
VARIANTS = {
    "swift-1": Variant(
        (_LIMIT, _PLACE), _AWAY, _module("x, y", "np.abs(x - y)"), ("limit", "amount", "made"),
        {"limit": 0.002, "amount": 0.01, "made": 0.1}, -1.0,
        lambda v: {"limit": v["limit"], "amount": v["amount"], "made": abs(v["x"] - v["place"])},
    ),
    "swift-2": Variant(
        (_PLACE, _AGE), _AWAY, _module("x, y", "(x - y) ** 2"), ("made", "age", "amount"),
        {"made": -0.05, "age": 0.03, "amount": 0.02}, 0.5,
        lambda v: {"made": (v["x"] - v["place"]) ** 2, "age": v["age"], "amount": v["amount"]},
    ),
    "swift-3": Variant(
        (_PLACE,), _AWAY, _module("x, y", "100 - np.abs(x - y)"), ("amount", "made"),
        {"amount": -0.03, "made": 0.01}, 0.0,
        lambda v: {"amount": v["amount"], "made": 100 - abs(v["x"] - v["place"])},
    ),
    "swift-4": Variant(
        (_LIMIT, _AGE), {"amount": "request.amount", "limit": "stored.limit"},
        _module("amount, limit", "amount / (1 + limit)"), ("limit", "age", "made", "x"),
        {"limit": -0.001, "age": 0.02, "made": 1.5, "x": -0.2}, 0.2,
        lambda v: {"limit": v["limit"], "age": v["age"], "made": v["amount"] / (1 + v["limit"]), "x": v["x"]},
    ),
}  # fmt: skip
# Twenty changes, forth and back: after each promotion of another release the one before comes back now and then.
CHANGES = (
    "swift-2",
    "swift-1",
    "swift-3",
    "swift-4",
    "swift-3",
    "swift-1",
    "swift-4",
    "swift-2",
    "swift-4",
    "swift-1",
) * 2


def stored(card: int) -> dict[str, float]:
    """What is known of a card."""
    return {"limit": 100.0 + 10 * card, "place": 0.25 * card, "age": 20.0 + card}


def prepare(settings: Settings) -> None:
    """Publish the cards, release all variants and promote the first."""
    cards = [(card, stored(card)) for card in range(CARDS)]
    with open_online(settings.online, write=True) as store:
        rows = [((card,), Row(NOW, NOW, 1, (known["limit"], known["place"]))) for card, known in cards]
        store.write("card_v1", ["limit", "x"], rows)
        store.write("card_v2", ["age"], [((card,), Row(NOW, NOW, 1, (known["age"],))) for card, known in cards])
    metadata = Metadata(settings.metadata)
    metadata.record_span("payments", first=0, last=NOW, known=NOW, rows=CARDS)
    registry = Registry(metadata, settings.folder("releases"))
    for number, id in enumerate(VARIANTS, 1):
        registry.register(*_release(id, number))
    registry.promote(SERVICE, "swift-1", reason="first")
    metadata.close()


def _contract(variant: Variant) -> Contract:
    dtypes = dict.fromkeys(variant.inputs, "float64")
    return Contract(
        view=SERVICE,
        spine="payments",
        request=(Field("card_id", "int64"), Field("amount", "float64"), Field("x", "float64")),
        optional=(),
        lookups=variant.lookups,
        on_demand=(OnDemand("made", "made", "float32", variant.inputs, dtypes),),
        features=tuple(Field(name, "float32" if name == "made" else "float64") for name in variant.features),
        on_demand_source=variant.source,
    )


def _release(id: str, number: int) -> tuple[Release, dict[str, bytes]]:
    variant, contract = VARIANTS[id], _contract(VARIANTS[id])
    load_functions(variant.source, ["made"], where=id)
    rows = np.array([list(expected(id, body)[0].values()) for body in _bodies(400)], dtype=np.float32)
    truth = np.array([expected(id, body)[1] for body in _bodies(400)])
    model, gate = _model(variant), _gate(truth)
    few = dict(zip(contract.feature_names, rows[:16].T, strict=True))
    files = {
        MODEL_FILES["onnx"]: _compiled(model, len(variant.features)),
        "contract.json": msgspec.json.encode(contract),
        "golden.json": msgspec.json.encode(golden_pairs(few, truth[:16])),
        "environment.txt": b"",
    }
    release = Release(
        id=id, service=SERVICE, number=number, created_at=time.time_ns() // 1000, task="classification",
        contract=contract, label={}, view_fingerprint=contract.fingerprint, groups={}, sources=("payments",), seq=0,
        dataset=DatasetRef(id="d", hash="h", rows=400, kind="view", now=NOW, splits={}), backend="onnx",
        layout="matrix", parity={}, metrics={"auc": gate.value or 0.0}, baseline={}, gates=[gate],
        files={name: sha256(data) for name, data in files.items()},
        on_demand_sha256=sha256(variant.source.encode()), environment={},
    )  # fmt: skip
    return release, files


def _model(variant: Variant) -> Any:
    from sklearn.linear_model import LogisticRegression

    width = len(variant.features)
    model = LogisticRegression().fit(np.eye(2, width), [0, 1])
    model.coef_ = np.array([[variant.weights[name] for name in variant.features]])
    model.intercept_ = np.array([variant.bias])
    return model


def _compiled(model: Any, width: int) -> bytes:
    import warnings

    from skl2onnx import convert_sklearn
    from skl2onnx.common.data_types import FloatTensorType

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        given = [(MATRIX_INPUT, FloatTensorType([None, width]))]
        made = convert_sklearn(model, initial_types=given, options={id(model): {"zipmap": False}})
    data: bytes = made.SerializeToString()
    return data


def _gate(chances: np.ndarray[Any, Any]) -> GateResult:
    """Judge the model on outcomes drawn from a world that is as it says."""
    from sklearn.metrics import roc_auc_score

    outcomes = np.random.default_rng(0).random(len(chances)) < chances
    auc = float(roc_auc_score(outcomes, chances))
    return GateResult(metric="auc", value=auc, bar=">= 0.55", passed=auc >= 0.55, why=f"auc is {auc:.3f}")


def _bodies(count: int, first: int = 0) -> Iterator[dict[str, Any]]:
    # Halves and quarters only: exact in float32, so that a vector can be compared to the last bit.
    for n in range(first, first + count):
        yield {"card_id": n % CARDS, "amount": 0.5 * (n % 101), "x": 0.25 * (n % 89)}


def expected(id: str, body: Mapping[str, Any]) -> tuple[dict[str, float], float]:
    """Return the vector and the answer of a release to a request, by the judge's own formulas."""
    variant = VARIANTS[id]
    vector = variant.vector({**body, **stored(body["card_id"])})
    score = variant.bias + sum(variant.weights[name] * value for name, value in vector.items())
    return vector, float(1 / (1 + np.exp(-score)))


class Sent(NamedTuple):
    """One request; times by `time.perf_counter`, status 0 where there was no answer."""

    body: dict[str, Any]
    begun: float
    ended: float
    status: int
    said: bytes

    @property
    def answer(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.said)
        return found


@dataclass
class Clients:
    """Sends `rate` requests a second over some kept connections, until it is closed."""

    url: str
    key: str
    rate: float = 500.0
    sent: list[list[Sent]] = field(default_factory=lambda: [[] for _ in range(CONNECTIONS)])

    def __enter__(self) -> Clients:
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,), daemon=True) for n in range(CONNECTIONS)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(30)

    def all(self) -> list[Sent]:
        """Return every request, as they began."""
        return sorted((one for part in self.sent for one in part), key=lambda one: one.begun)

    def newest(self) -> list[str]:
        """Return the release that answered each connection last."""
        return [part[-1].answer.get("release", "") if part else "" for part in self.sent]

    def _run(self, number: int) -> None:
        address = urlsplit(self.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
        due, bodies = time.perf_counter(), _bodies(10**9, first=number * 1000)
        while not self._ended.is_set():
            # By the clock and not after a pause: a slow answer makes the next ones come closer, not fewer.
            due += CONNECTIONS / self.rate
            self._ended.wait(max(0.0, due - time.perf_counter()))
            self.sent[number].append(self._ask(connection, next(bodies)))
        connection.close()

    def _headers(self) -> dict[str, str]:
        return {"content-type": "application/json", "authorization": f"Bearer {self.key}"}

    def _ask(self, connection: http.client.HTTPConnection, body: dict[str, Any]) -> Sent:
        begun = time.perf_counter()
        try:
            connection.request("POST", f"/v1/{SERVICE}/predict", json.dumps(body), self._headers())
            answer = connection.getresponse()
            said = answer.read()
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            return Sent(body, begun, time.perf_counter(), 0, str(error).encode())
        return Sent(body, begun, time.perf_counter(), answer.status, said)


class Change(NamedTuple):
    """One promotion or rollback: when it was asked for, and what was live before."""

    at: float
    before: str
    after: str


def change_releases(settings: Settings, clients: Clients, *, hold: float = 0.3) -> list[Change]:
    """Promote what `CHANGES` says, each when the one before answers everywhere; return when each was asked for."""
    metadata = Metadata(settings.metadata)
    registry, made, live = Registry(metadata, settings.folder("releases")), list[Change](), "swift-1"
    for id in CHANGES:
        made.append(Change(time.perf_counter(), live, id))
        registry.promote(SERVICE, id, reason="rollback" if id < live else "promotion")
        live = id
        deadline = time.perf_counter() + 20
        while set(clients.newest()) != {id} and time.perf_counter() < deadline:
            time.sleep(0.005)
        time.sleep(hold)
    metadata.close()
    return made


class Verdict(NamedTuple):
    """What became of the requests.

    Attributes
    ----------
    in_effect
        For each change the seconds until the last answer that the release before gave.
    failed
        Requests without a 200.
    mixed
        Answers that are not those of their release to what was asked and logged, with why.
    """

    answers: int
    per_second: float
    in_effect: list[float]
    failed: list[Sent]
    mixed: list[str]


def judge(settings: Settings, sent: list[Sent], changes: list[Change]) -> Verdict:
    """Compare every answer with the log and with the judge's own formulas."""
    failed = [one for one in sent if one.status != 200]
    answered = [one for one in sent if one.status == 200]
    rows = PredictionLog(settings.folder("log"), Lake(settings.lake)).table(SERVICE).to_pylist()
    logged = {row["request_id"]: row for row in rows}
    mixed = [why for one in answered if (why := wrong(one, logged))]
    mixed += [] if len(rows) == len(logged) else ["a request is in the log twice"]
    mixed += _out_of_turn(answered, changes)
    spent = sent[-1].ended - sent[0].begun
    return Verdict(len(answered), len(answered) / spent, _in_effect(answered, changes), failed, mixed)


def wrong(one: Sent, logged: Mapping[str, Mapping[str, Any]]) -> str:
    """Say what is wrong with an answer, "" for nothing."""
    answer = one.answer
    row = logged.get(answer["request_id"])
    if row is None:
        return "an answer is not in the log"
    vector, chance = expected(answer["release"], one.body)
    found = json.loads(row["vector"])
    if row["release"] != answer["release"] or list(found) != list(vector):
        return f"{answer['release']} answered, and the log has {row['release']} with {list(found)}"
    if any(np.float32(value) != np.float32(found[name]) for name, value in vector.items()):
        return f"{answer['release']} computed {found} of {one.body}, not {vector}"
    said = answer["predictions"][0]["value"]
    if abs(said - chance) > 1e-5 or said != row["output"]:
        return f"{answer['release']} said {said} to {vector}, not {chance} (log: {row['output']})"
    return ""


def _out_of_turn(answered: list[Sent], changes: list[Change]) -> list[str]:
    """Name answers of a release that was live neither when they were asked for nor when they came."""
    wrong, ends = [], [*(change.at for change in changes[1:]), float("inf")]
    for change, end in zip(changes, ends, strict=True):
        inside = [one for one in answered if change.at <= one.begun and one.ended < end]
        wrong += [
            f"{r} answered" for one in inside if (r := one.answer["release"]) not in (change.before, change.after)
        ]
    return wrong


def _in_effect(answered: list[Sent], changes: list[Change]) -> list[float]:
    seconds, ends = [], [*(change.at for change in changes[1:]), float("inf")]
    for change, end in zip(changes, ends, strict=True):
        old = [o.ended for o in answered if change.at <= o.ended < end and o.answer["release"] != change.after]
        seconds.append(max(old, default=change.at) - change.at)
    return seconds
