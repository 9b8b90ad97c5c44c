"""Several hosts on one machine: network namespaces on a bridge, with real node processes in them.

`namespaces` is what the kernel is asked for · `network` hosts and what goes wrong between them · `mesh` nodes on hosts
"""
