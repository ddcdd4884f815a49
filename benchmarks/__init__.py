"""Models, corpus and suites that measure onnxpress. Run ``python -m benchmarks --help``."""
