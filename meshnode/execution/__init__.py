"""Running a task: what it reads is fetched and laid out, what it wrote is collected and stored.

executor    from StartRun to its one RunFinished or RunFailed
inputs      a task's input object, and the folder it becomes
models      a model's files, laid out once for all its tasks
outputs     what a task wrote, as blobs
linked      files inside JSON values
faults      whose fault it was
"""
