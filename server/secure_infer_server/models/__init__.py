"""The models that are served: a directory that is watched, versions that are kept while clients use them, signatures.

settings      how often the directory is looked at, how long versions are kept, whose signatures are taken
directory     the files that are there, and what tells one state of a file from another
signatures    Ed25519 over a model's digest and name; serials: no older one after a newer one
model         what every model has; versions: models by name and digest, replaced in one step
aside         work in a process of its own, which may die of it
watch         files that change: read aside, then taken over
served        a head with the plans that its policy allows
registry      the heads of a CKKS server; messages: how a model is, on the wire
"""
