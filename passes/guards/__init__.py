"""Guards for deployment: what models do about inputs and answers that should not be."""
