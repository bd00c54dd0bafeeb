"""What groups read, kept in the home by definition, so that whoever loads definitions next compiles none of them.

Reading a definition off takes an SQL compiler, and importing Ibis' ones takes as long as all else that loading does.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from functools import cache
from importlib.metadata import version
from itertools import islice
from pathlib import Path

import msgspec

from windrow.features import lineage as reading
from windrow.features import query_lineage
from windrow.features.group import FeatureGroup
from windrow.features.lineage import GroupLineage, lineage, remember, takes_compiler
from windrow.features.query_lineage import Read
from windrow.schema import fingerprint

FILE = "lineage_of_groups.json"
_KEPT = 500  # definitions; older ones are read off again when somebody goes back to them


class _Lineage(msgspec.Struct):
    features: dict[str, list[Read]]
    rows: list[Read]


class _File(msgspec.Struct):
    """Lineage by fingerprint of the group, and fingerprint of the code that read it off."""

    made_by: str
    groups: dict[str, _Lineage]


def read_off_once(groups: Iterable[FeatureGroup], home: Path) -> None:
    """Make `lineage` of the groups known: from ``<home>/lineage_of_groups.json``, else read off and written there.

    A file that is broken, or that another version wrote, is as good as none. Processes that write at
    once all write what is true; the last one stays.
    """
    asked = {group.fingerprint: group for group in groups if takes_compiler(group)}
    kept = _load(home / FILE)
    for made_from, found in kept.items():
        if made_from in asked and found.features.keys() == asked[made_from].features.keys():
            features = {name: frozenset(reads) for name, reads in found.features.items()}
            remember(asked[made_from], GroupLineage(features, frozenset(found.rows)))
    now = {made_from: _kept(lineage(group)) for made_from, group in asked.items()}
    if any(kept.get(made_from) != found for made_from, found in now.items()):
        _save(home / FILE, {**now, **{old: found for old, found in kept.items() if old not in now}})


@cache
def _made_by() -> str:
    """What an answer depends on beside the group: the code here, and the compiler and the parser it uses."""
    code = [Path(str(module.__file__)).read_text(encoding="utf-8") for module in (reading, query_lineage)]
    return fingerprint([version("ibis-framework"), version("sqlglot"), *code])


def _kept(made: GroupLineage) -> _Lineage:
    return _Lineage({name: sorted(reads) for name, reads in made.features.items()}, sorted(made.rows))


def _load(path: Path) -> dict[str, _Lineage]:
    try:
        file = msgspec.json.decode(path.read_bytes(), type=_File)
    except (OSError, msgspec.MsgspecError, UnicodeDecodeError):
        return {}
    return file.groups if file.made_by == _made_by() else {}


def _save(path: Path, groups: Mapping[str, _Lineage]) -> None:
    data = msgspec.json.encode(_File(_made_by(), dict(islice(groups.items(), _KEPT))))
    beside = path.with_name(f".{FILE}.{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside.write_bytes(data)
        beside.replace(path)
    except OSError:  # it only saves time: a home that cannot be written does without
        with suppress(OSError):
            beside.unlink()
