"""Training of linear models across a federation: data sets, the round driver, its report and its plot."""
