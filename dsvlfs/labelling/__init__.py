"""Labels of whole data sets."""
