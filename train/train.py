"""Trains DSV-LFS: `accelerate launch train/train.py --config train/configs/NAME.yaml --data-root DATA --out RUN`."""

import sys

from dsvlfs.cli import main

if __name__ == "__main__":
    sys.exit(main(["train", *sys.argv[1:]]))
