"""On-demand functions of these tests: a module of their own, because a release keeps its text."""

from __future__ import annotations


def above(a, b):
    """How far this payment is above the mean so far."""
    return a - b
