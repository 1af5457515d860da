"""Engines: model servers that run as children of the router.

`lifecycle` and `stuck` decide, purely; `keeper` holds one process and all its descendants, and ends them
with the router; `process`, `log` and `surface` do what was decided; `supervisor` puts these together for one
engine. `desk` tells every process that answers calls how the engines are, and `link` is that process's end.

A layer of its own between the providers, which say what process they want, and the composition root: the
processes belong to whoever lives longest, which with several workers is their parent, not a provider.
"""
