"""What Dagster loads: every declaration of this project as an asset."""

from windrow.orchestrate import definitions

defs = definitions("assets")
