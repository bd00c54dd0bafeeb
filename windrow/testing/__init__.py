"""Test tools for users: rows in, features out; proofs about groups and views; and checks put to the test themselves.

A project's test is a line or two: ``assert features_of(spend, payments=rows)[0]["cents"] == 500``,
``no_look_ahead(spend, payments=rows)``, ``order_invariant(...)``, ``partition_invariant(...)``,
``rerun_changes_nothing(...)``, ``no_leak(service, dataset)``, ``assert mutate(spend, payments=rows).never_fired == ()``. ``service(bakery)`` is the
whole of a service for the length of a test: trained, released, and answering over HTTP.
"""

from __future__ import annotations

from windrow.testing.answers import features_of
from windrow.testing.fitted import fitted_content
from windrow.testing.future import no_look_ahead
from windrow.testing.given import Rows
from windrow.testing.invariance import order_invariant, partition_invariant, rerun_changes_nothing
from windrow.testing.leak import no_leak
from windrow.testing.mutation import Mutant, Mutation, mutate
from windrow.testing.served import Served, service
from windrow.testing.tables import MemoryTable, times

__all__ = [
    "MemoryTable", "Mutant", "Mutation", "Rows", "Served", "features_of", "fitted_content", "mutate", "no_leak", "no_look_ahead",
    "order_invariant", "partition_invariant", "rerun_changes_nothing", "service", "times",
]  # fmt: skip
