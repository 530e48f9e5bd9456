"""Names that gRPC's health service answers for besides the services' own; the empty one is the same as `READINESS`."""

LIVENESS = "liveness"
"""The process answers: to be started anew when it does not. SERVING also while calls under way end."""

READINESS = "readiness"
"""Calls may be sent here. SERVING also under more load than it can take, which is refused call by call."""
