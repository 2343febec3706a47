"""A directory for PYTHONPATH: Python imports its sitecustomize at its start."""
