"""Steps: what happens to the network before it is quantized."""
