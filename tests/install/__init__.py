"""The package as it is given away, in clean environments: `python -m pytest -m install -n 0`.

What its dependencies are is loaded from the package registry.
"""
