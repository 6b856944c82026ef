"""A result of `evaluate`, for people to read."""

from collections.abc import Mapping
from typing import Any


def result_table(result: dict[str, Any]) -> str:
    """The IoU of each class, the means, and what they were measured on."""
    low, high = result["miou_interval_95"]
    rows = [
        *result["iou"].items(),
        ("mIoU", result["miou"]),
        ("FB-IoU", result["fb_iou"]),
        ("boundary IoU", result["boundary_iou"]),
    ]
    for key, title in (("shared_classes", "mIoU, trained classes"), ("new_classes", "mIoU, new classes")):
        if result.get(key, {}).get("classes"):
            rows.append((f"{title} ({len(result[key]['classes'])})", result[key]["miou"]))
    for key, title in (("base_false_positive_rate", "base classes covered"), ("right_tile", "right tile")):
        if result.get(key) is not None:
            rows.append((title, result[key]))
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {percent:5.1f} %" for name, percent in rows]
    if "miou_by_seed" in result:
        lines.append(f"{len(result['miou_by_seed'])} seeds, mIoU's standard deviation {result['miou_std']:.2f}")
    lines.append(
        f"{result['episodes']} episodes, mIoU's 95 % interval {low:.1f} to {high:.1f}, "
        f"{result['seconds_per_query']:.2f} s a query"
    )
    return "\n".join(lines)


def fields_table(results: Mapping[str, Mapping[str, dict[str, Any]]], mean: Mapping[str, dict[str, float]]) -> str:
    """mIoU by field and by mode or comparison, in percent, and the mean over the fields."""
    columns = list(mean)
    width = max(map(len, [*results, "mean of fields"]))
    wide = max(map(len, columns))
    rows = [(name, [own[column]["miou"] for column in columns]) for name, own in results.items()]
    rows.append(("mean of fields", [mean[column]["miou"] for column in columns]))
    lines = [f"{'mIoU (%)':<{width}}  " + "  ".join(f"{column:>{wide}}" for column in columns)]
    lines += [f"{name:<{width}}  " + "  ".join(f"{value:>{wide}.1f}" for value in values) for name, values in rows]
    return "\n".join(lines)
