"""Content-addressed blobs: immutable bytes named by a CID, on disk and between peers.

cid         names
dagpb       one DAG node, to and from bytes
unixfs      a file as a DAG: the layout, and building it from a stream
walk        checking a DAG block by block against its root
store       blobs on disk
incoming    a blob on its way in, kept across a restart
wire        frames and messages of the transfer protocol
exchange    serving blobs and fetching them
"""
