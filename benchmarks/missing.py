"""Imported first, lets the benchmarks that read no data set run where the packages that read them are not installed."""

import importlib.util
import sys
from unittest.mock import MagicMock

UNUSED = {"datasets": ("datasets.exceptions", "datasets.utils", "datasets.utils.logging"), "pycocotools": ()}

for package, parts in UNUSED.items():
    if package not in sys.modules and importlib.util.find_spec(package) is None:
        for name in (package, *parts):
            sys.modules[name] = MagicMock(name=name)
