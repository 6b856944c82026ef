"""`accelerate launch -m dsvlfs.training ...` is `accelerate launch train/train.py ...`."""

import sys

from ..cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
