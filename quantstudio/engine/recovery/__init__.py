"""Steps that win accuracy back without training; every module here that registers one is found by itself."""
