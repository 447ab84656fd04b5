"""Engine work: which task makes which finding, what follows from what, what is known already."""
