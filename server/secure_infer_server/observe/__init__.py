"""What an operator sees of a server: figures, traces, health. None of it holds content: docs/observability.md lists all of it.

calls       one call as observers see it, and who is told of it       gate         which model a call is for, and how it ended
figures     counts and histograms of calls, in memory                 collectors   those, and of any process, for Prometheus
server      workers, keys and models, for Prometheus                  tracing      calls as OpenTelemetry spans
endpoint    HTTP: /metrics, /live, /ready                             families     metrics under one prefix
reflection  which services there are, behind the gate                 health       names that gRPC's health service knows
"""
