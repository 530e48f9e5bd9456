"""Names that gRPC's health service answers for besides the services' own; the empty one is the same as `READINESS`."""

from grpc_health.v1.health_pb2 import HealthCheckResponse

LIVENESS = "liveness"
"""The process answers: to be started anew when it does not. SERVING also while calls under way end."""

READINESS = "readiness"
"""Calls may be sent here. SERVING also under more load than it can take, which is refused call by call.
Not while nothing can be recorded: every call is refused then."""

STATUS = {True: HealthCheckResponse.SERVING, False: HealthCheckResponse.NOT_SERVING}
"""Of what is ready or not."""
