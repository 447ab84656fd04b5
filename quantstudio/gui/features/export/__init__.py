"""Writing the quantized model."""
