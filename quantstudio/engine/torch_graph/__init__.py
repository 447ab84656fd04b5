"""The normalised ONNX graph as a differentiable torch module with hooks."""
