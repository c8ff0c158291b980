"""Whether the images that a model has judged still resemble those of its calibration."""

from __future__ import annotations

import os

from iadbe.monitoring.findings import Findings, findings
from iadbe.running.model_folder import resolve_folder


def drift(model: str | os.PathLike[str], *, source: str = "", running: bool = False) -> Findings:
    """Compare the hours of a model's use with its calibration.

    `iadbe predict` and `iadbe watch` keep a summary of each hour in the model's folder.

    Args:
        model: a model's folder or a run's
        source: predict or watch alone; empty: both
        running: count the hour that is not over, too; that weakens what the p-value says if one looks again and again

    Raises :class:`BadConfig` for a model that has no calibration with at least 20 good images.
    """
    return findings(resolve_folder(os.fspath(model)), source, running=running)
