"""The assets of one prediction service: training dataset, model, predictions, monitors."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from windrow.clock import spoken
from windrow.errors import NotFoundError
from windrow.features.source import Source
from windrow.models.service import Drift, Notebook, PredictionService
from windrow.orchestrate.checks import drift_check, drift_result, gate_checks, gate_results, monitor_key
from windrow.orchestrate.facts import Metadata, asset_key, comparison, counts, moment, schema_of
from windrow.orchestrate.factories import Events, Plan, build
from windrow.orchestrate.notebook_file import NotebookFile
from windrow.orchestrate.notebooks import config_schema, inputs, run_notebook
from windrow.orchestrate.partitions import DAY, day_start
from windrow.orchestrate.resources import Stores
from windrow.schema import fingerprint
