"""Weight histograms, sensitivity of layers, prediction of what a recipe costs."""
