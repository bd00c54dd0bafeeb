"""The joining place: settings -> stores -> Dagster definitions. ``workspace.yaml`` loads it, and nothing else."""

from windrow import Settings
from windrow.orchestrate import definitions

defs = definitions("assets", Settings.read())
