"""The page of the steps: what happens to the network before it is quantized."""
