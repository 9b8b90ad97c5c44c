"""What takes hours: run by ``make soak``, not by ``make test``. See ``__main__.py``.

`pieces` a part is pieces that are done once · `commands` parts that are commands · `shards` the part with nodes of its
own · `brief` a node whose day lasts minutes · `sampling` what a process has, and its slope · `results` what is written
"""
