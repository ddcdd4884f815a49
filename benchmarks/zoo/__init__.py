"""Scripts that train, export and describe the small models in ``benchmarks/models``."""
