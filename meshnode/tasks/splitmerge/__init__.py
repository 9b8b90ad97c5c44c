"""How a job's input is cut into shards and their outputs are put together again."""
