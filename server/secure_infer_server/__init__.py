"""The untrusted side: it evaluates what it cannot read, and holds no secret key.

settings   what the operator decides      registry   artifacts and their compiled plans
keystore   clients' public keys           guard      refuses secret keys sent by mistake
blinds     blinds prepared ahead          dataplane  requests, free of any protocol
servicer   gRPC in and out                app        ports, credentials, health, shutdown
"""
