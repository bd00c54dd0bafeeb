"""What the check of an access key costs each request: an ordinary client's headers, a key with a rate, the scope asked."""

from __future__ import annotations

from statistics import median
from tempfile import TemporaryDirectory
from timeit import repeat

from tests.benchmarks.harness import Row
from windrow.serving.guard import Guard
from windrow.serving.keyring import Keyring
from windrow.serving.keys import make_key
from windrow.stores.metadata import Metadata

KEYS, CALLS = 100, 100_000


def rows() -> list[Row]:
    """Admit one request again and again, with a hundred keys in the store."""
    with TemporaryDirectory() as folder:
        metadata = Metadata(f"sqlite:///{folder}/metadata.db")
        keys = [make_key(metadata, f"key {n}", scopes=["predict"], rate=1e6)[1] for n in range(KEYS)]
        keyring = Keyring(metadata)
        keyring.refresh()
        guard = Guard(keyring)
        scope = {"type": "http", "method": "POST", "path": "/v1/fraud/predict", "headers": _headers(keys[50])}
        spent = [seconds / 100 * 1e6 for seconds in repeat(lambda: guard.admit(scope), number=100, repeat=CALLS // 100)]
        keyring.close()
    micros = median(spent)
    note = (
        f"best {min(spent):.2f} us; SHA-256 of the key, constant-time comparison, expiry, scope and rate; {KEYS} keys"
    )
    return [
        Row(
            name="access key checked, per request", value=micros, unit="us", bar="<= 2 us", holds=micros <= 2, note=note
        )
    ]


def _headers(key: str) -> list[tuple[bytes, bytes]]:
    return [
        (b"host", b"127.0.0.1:3000"),
        (b"user-agent", b"python-httpx/0.28"),
        (b"accept", b"*/*"),
        (b"content-type", b"application/json"),
        (b"content-length", b"87"),
        (b"authorization", f"Bearer {key}".encode()),
    ]
