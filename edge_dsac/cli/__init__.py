"""The one composition root: every verb of `edge-dsac` puts the parts together here, and nobody imports this package.

One module per group of verbs; each offers `add(verbs)`, which declares its arguments and sets `run=function(args) -> exit code`.
"""
