"""What training needs of a machine, as the tags that Dagster's launchers and executors read."""

import json
from typing import Any

from windrow.models.resources import Resources


def op_tags(resources: Resources) -> dict[str, str]:
    """Return the tags of an op that needs `resources`; the default, in-process executor reads none of them.

    Returns
    -------
    dict
        ``dagster-k8s/config`` (requests and limits of the container), ``dagster-celery/queue``, and each
        need under its own name (``windrow/gpu``), for limits on concurrency by tag.

    Examples
    --------
    >>> op_tags({"queue": "training"})
    {'windrow/queue': 'training', 'dagster-celery/queue': 'training'}
    """
    tags = {f"windrow/{name}": str(amount) for name, amount in resources.items()}
    asked = {_NAMES[name]: str(amount) for name, amount in resources.items() if name in _NAMES}
    if asked:
        container: dict[str, Any] = {"resources": {"requests": asked, "limits": asked}}
        tags["dagster-k8s/config"] = json.dumps({"container_config": container})
    if "queue" in resources:
        tags["dagster-celery/queue"] = str(resources["queue"])
    return tags


_NAMES = {"cpu": "cpu", "memory": "memory", "gpu": "nvidia.com/gpu"}
