"""What a node answers to its clients.

ports      what is asked of a node
errors     the one error that a request ends in
requests   the operations and their arguments
core       questions to the node's core
finding    the job that a text means, and its steward
models     operations on models
relaying   a job's files, for a steward that its client cannot reach
jobs       operations on jobs
service    all operations, over a node
http       as HTTP on loopback, for the node's own people
gateway    as a libp2p protocol, for submitters without a node
"""
