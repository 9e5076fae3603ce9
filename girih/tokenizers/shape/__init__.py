"""Tokenizers of shapes: meshes, hair, rigs and CAD programs, each a language of records (``tokenizers/records.py``)."""
