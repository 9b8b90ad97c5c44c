"""The mesh as values and rules: no clock, no socket, no await, no global randomness, no logging."""
