"""gRPC in and out of a dealer: one stream a party, whose certificate has to say that it is that party."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from typing import Any

import grpc

from secure_infer.errors import InternalFault, MalformedRequest, SecureInferError
from secure_infer.v1 import mpc_pb2, mpc_pb2_grpc
from secure_infer_server.mpc import recipes, roles
from secure_infer_server.mpc.dealer import Dealer
from secure_infer_server.mpc.endpoint import Endpoint, Listening, errors_answered
from secure_infer_server.mpc.seats import Seat

log = logging.getLogger(__name__)

SERVICE = mpc_pb2.DESCRIPTOR.services_by_name["DealerService"].full_name
HELLO_SECONDS = 5.0
_THREADS = 16  # a stream keeps one
_CALLS = 16


class DealerServicer(mpc_pb2_grpc.DealerServiceServicer):
    def __init__(self, dealer: Dealer) -> None:
        self._dealer = dealer

    def Deal(self, request: Iterator[mpc_pb2.DealRequest], context: Any) -> Iterator[mpc_pb2.DealResponse]:  # noqa: N802
        with errors_answered("DealerService/Deal", context):
            roles.require(context, roles.Role.PARTY_0, roles.Role.PARTY_1)
            seat = self._dealer.join(_hello(request, context), context.cancel)
            try:
                if not context.add_callback(lambda: self._dealer.leave(seat)):
                    return
                context.send_initial_metadata((recipes.HEARD,))  # says to the party that it is heard
                threading.Thread(target=self._listen, args=(request, seat), name="wants", daemon=True).start()
                yield from seat.outgoing()
            finally:
                self._dealer.leave(seat)

    def _listen(self, request: Iterator[mpc_pb2.DealRequest], seat: Seat) -> None:
        try:
            for message in request:
                if not message.HasField("want"):
                    raise MalformedRequest("deal: after the first message, expected wants")
                self._dealer.want(seat, message.want.recipe, message.want.count)
        except SecureInferError as error:
            seat.close(error)
        except grpc.RpcError:
            pass  # the party went away
        except Exception:
            log.exception("while listening to party %d", seat.party)
            seat.close(InternalFault("the dealer failed; its log has the details"))
        self._dealer.leave(seat)


def _hello(request: Iterator[mpc_pb2.DealRequest], context: grpc.ServicerContext) -> int:
    """The party that opens the stream; raises MalformedRequest, or PrivacyRefused for the other party's certificate."""
    timer = threading.Timer(HELLO_SECONDS, context.cancel)
    timer.daemon = True
    timer.start()
    message = next(request, None)
    timer.cancel()
    if message is None or not message.HasField("hello") or message.hello.party > 1:
        raise MalformedRequest("deal: expected a hello of party 0 or 1 in the first message")
    roles.require(context, roles.of_party(message.hello.party))
    return int(message.hello.party)


class DealerProcess:
    """A dealer that listens: `start` returns its address, `heed_signals` and `wait` serve until SIGTERM or SIGINT."""

    def __init__(self, listening: Listening) -> None:
        self.dealer = Dealer()
        limit = recipes.MAX_RECIPE_BYTES + (4 << 10)
        self._endpoint = Endpoint(listening, (SERVICE,), threads=_THREADS, calls=_CALLS, limit=limit)
        mpc_pb2_grpc.add_DealerServiceServicer_to_server(DealerServicer(self.dealer), self._endpoint.services)
        self.heed_signals, self.wait = self._endpoint.heed_signals, self._endpoint.wait
        self.ready, self.certificate = self._endpoint.ready, self._endpoint.certificate

    def start(self) -> str:
        address = self._endpoint.start()
        self.dealer.start()
        return address

    def stop(self) -> None:
        """End the parties' streams, which go on with what they hold and come again; then stop."""
        self.dealer.close()
        self._endpoint.stop()
