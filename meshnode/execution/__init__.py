"""Running a task: what it reads is fetched and laid out, what it wrote is collected and stored.

executor    from StartRun to its one RunFinished or RunFailed
inputs      a task's input object, and the folder it becomes
programs    the model's own command, or one that is built in, or a plug-in; and what it is told
answering   the shards of a task, asked of a model that stays loaded
series      what the shards of a task read and leave, one after the other
models      a model's files, laid out once for all its tasks
outputs     what a task wrote, as blobs
written     its value and its files on the way there
shards      the inputs of shards: as a split writes them, as they are stored, as a task reads its own
linked      files inside JSON values
faults      whose fault it was
"""
