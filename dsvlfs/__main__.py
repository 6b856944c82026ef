"""`python -m dsvlfs`."""

import sys

from .cli import main

sys.exit(main())
