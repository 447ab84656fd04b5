"""The window. Its process imports no torch, onnxruntime or onnx."""
