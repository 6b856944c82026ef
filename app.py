"""The web page, as a Space runs it: `python app.py` is `dsvlfs demo`."""

import sys

from dsvlfs.cli import main
from dsvlfs.page.layout import demo  # noqa: F401 (what a Space looks for)

if __name__ == "__main__":
    sys.exit(main(["demo", *sys.argv[1:]]))
