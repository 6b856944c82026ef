"""What classes look like, in words: a bank of texts that comes with the package, and language models that write more.

The paper has a large language model write a paragraph of each class's distinguishing visual features (arXiv
2503.04006, section 3.1).
"""
