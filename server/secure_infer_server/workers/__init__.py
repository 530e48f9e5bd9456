"""Evaluation in processes of their own: TenSEAL never releases the interpreter lock, and C++ may take a process down.

settings   how many, how much they may hold       frames     what travels between server and worker
worker     the worker's side                      process    the server's side of one worker
jobs       what is asked of a worker              placement  which worker takes a job
pool       workers for single queries             lane       workers for batches
figures    how they are
"""
