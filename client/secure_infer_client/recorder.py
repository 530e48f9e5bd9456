"""A recorder on a server's socket: forwards bytes both ways and keeps them, to show what the server really sees."""

from __future__ import annotations

import socket
import threading


class Recorder:
    """Listens on a free loopback port and forwards every connection to `target`, "HOST:PORT".

    `sent` and `received` hold all bytes from clients to the server and back, in order of arrival. For demonstrations
    and tests without TLS; with TLS the same bytes are encrypted once more.
    """

    def __init__(self, target: str) -> None:
        host, _, port = target.rpartition(":")
        self._upstream = (host.strip("[]"), int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.sent = bytearray()
        self.received = bytearray()
        self._sockets: list[socket.socket] = []
        threading.Thread(target=self._accept, name="recorder", daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._upstream)
            except OSError:  # the client sees what it would see without a recorder: a connection that fails
                client.close()
                continue
            for one in (client, server):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets += [client, server]
            for source, sink, record in ((client, server, self.sent), (server, client, self.received)):
                threading.Thread(target=self._forward, args=(source, sink, record), daemon=True).start()

    @staticmethod
    def _forward(source: socket.socket, sink: socket.socket, record: bytearray) -> None:
        try:
            while data := source.recv(1 << 16):
                record += data
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            return

    def close(self) -> None:
        self._listener.close()
        for one in self._sockets:
            one.close()

    def __enter__(self) -> Recorder:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
