"""What was measured in several fields, as one figure."""

from collections.abc import Mapping
from typing import Any

MEASURES = ("miou", "fb_iou", "boundary_iou")


def mean_over_fields(results: Mapping[str, Mapping[str, dict[str, Any]]]) -> dict[str, dict[str, float]]:
    """The mean over fields of each measure, every field counting the same.

    Args:
        results: by field, then by mode or comparison, of `dsvlfs.measuring.evaluation.evaluate`.

    Returns:
        `MEASURES` by mode or comparison, in percent.
    """
    columns = next(iter(results.values()))
    return {
        column: {name: sum(own[column][name] for own in results.values()) / len(results) for name in MEASURES}
        for column in columns
    }
