"""From graph, statistics and recipe to an ONNX file that runs: schemes, emitters, kernel report."""
