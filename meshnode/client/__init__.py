"""What a submitter needs: read a job file, sign it, hand it in, follow it, fetch its output.

home        the submitter's key and the signed jobs that were handed in
errors      the two ways in which a request fails
results     what a node answers, as frozen values
connection  what is asked of a node, whatever the way to it
http        the way to a node of one's own
peer        the way to any node, over libp2p
images      looking at an image before anything is sent
compile     job file + model + proposal → the job spec that is signed
superseding the earlier job that a job takes the place of
submission  from a job file to an accepted job
client      all of it behind one class
"""
