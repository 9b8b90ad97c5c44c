"""What a sandboxed model finds on its path besides the packages of the node: files that need nothing else."""
