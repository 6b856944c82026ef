"""The field's data sets, their folds and protocols, and episodes of them."""
