"""The built-in split and merge programs.

They decode strangers' files, so a node runs them like any other task: in the sandbox, with this folder
mounted read-only as MESH_MODEL and the command ``python3 split.py`` or ``python3 merge.py``. Hence two rules:
nothing here imports the rest of meshnode, and everything beside the two scripts is one package with relative
imports, which works as well from the scripts' own folder as it does as ``meshnode.tasks.splitmerge``.
"""
