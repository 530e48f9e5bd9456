"""The untrusted side: it evaluates what it cannot read, and holds no secret key.

settings   what the operator decides      registry   artifacts and their compiled plans
keys       clients' public keys, stored   guard      refuses secret keys sent by mistake
blinds     blinds prepared ahead          dataplane  requests, free of any protocol
batches    many records at once           workers    evaluation in processes of their own
front      where a request is evaluated   gate       what every call passes
rpc        calls on an event loop         servicer   models and queries, in and out
clients    their keys, for evaluation     app        ports, credentials, health, shutdown
process    a port bound, an end heeded    listener   a server that is replaced where gRPC ends it
messages   bytes that are no message    aioserver  gRPC's server, where no caller can end it
"""
