"""`accelerate launch -m dsvlfs.training ...` is `accelerate launch train/train.py ...`."""

from .run import main

if __name__ == "__main__":
    main()
