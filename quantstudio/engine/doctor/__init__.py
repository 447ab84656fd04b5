"""The data doctor: which transform a network wants of a data set, found by trying, and what is wrong."""
