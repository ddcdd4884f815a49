"""Scripts that export models of the corpus from their frameworks.

``corpus.toml`` names a script and its arguments; ``python -m benchmarks export`` calls
``<script>.export(path, **arguments)``, which writes one ONNX file to ``path``.
"""
