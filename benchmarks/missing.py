"""Imported first, lets the benchmarks that read no data set run where the packages that read them are missing."""

import importlib
import sys
from unittest.mock import MagicMock

UNUSED = {"datasets": ("datasets.exceptions", "datasets.utils", "datasets.utils.logging"), "pycocotools": ()}

for package, parts in UNUSED.items():
    try:
        importlib.import_module(package)
    except Exception:  # also one that wants another version of what it needs
        for name in (package, *parts):
            sys.modules[name] = MagicMock(name=name)
