"""The ground: reading, viewing, editing and cutting ONNX graphs, and opening sessions on them."""
