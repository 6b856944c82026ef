"""`dsvlfs` with a model whose classes are colours, as a process of its own."""

import sys

from colour_model import ColourModel

import dsvlfs
from dsvlfs.cli import main, review
from dsvlfs.labelling import request

dsvlfs.DSVLFSModel = request.DSVLFSModel = ColourModel
review.PROGRAM = (sys.executable, __file__)

if __name__ == "__main__":
    sys.exit(main())
