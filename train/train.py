"""Trains DSV-LFS: `accelerate launch train/train.py --config train/configs/NAME.yaml --data-root DATA --out RUN`."""

from dsvlfs.training.run import main

if __name__ == "__main__":
    main()
