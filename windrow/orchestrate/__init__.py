"""The room that knows Dagster: a project's declarations as assets, checks, schedules and sensors.

from windrow.orchestrate import definitions

defs = definitions("assets")
"""

from windrow.orchestrate.project import definitions

__all__ = ["definitions"]
