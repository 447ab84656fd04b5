"""The normalised ONNX graph as a differentiable torch module: one mechanism for training and analysis."""
