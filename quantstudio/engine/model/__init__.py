"""Open model files, normalise them to one ONNX graph, prove it, and list the layers."""
