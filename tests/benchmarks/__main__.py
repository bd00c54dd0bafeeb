"""Run ``python -m tests.benchmarks [NAME]``: the table on the screen, one JSON line per row in the home folder."""

from __future__ import annotations

import sys

from tests.benchmarks.harness import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
