"""An HTTP proxy in a process of its own: CONNECT, with or without basic authentication, to wherever names are said to lead.

    python connect_proxy.py USER:PASSWORD|- NAME=HOST:PORT ...

Prints its port, then a line a request: the status it gave and what was asked for.
"""

from __future__ import annotations

import base64
import socket
import sys
import threading


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def forward(source: socket.socket, sink: socket.socket) -> None:
    try:
        while data := source.recv(1 << 16):
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def serve(client: socket.socket, login: str, ways: dict[str, tuple[str, int]]) -> None:
    head = b""
    while b"\r\n\r\n" not in head:
        head += client.recv(4096)
    lines = head.decode().split("\r\n")
    asked = lines[0].split(" ")[1]
    wanted = f"Basic {base64.b64encode(login.encode()).decode()}"
    given = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    if login != "-" and given.get("proxy-authorization") != wanted:
        say(f"407 {asked}")
        client.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
        client.close()
        return
    server = socket.create_connection(ways[asked.rpartition(":")[0]])
    say(f"200 {asked}")
    client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
    threading.Thread(target=forward, args=(server, client), daemon=True).start()
    forward(client, server)


def main() -> None:
    login, *given = sys.argv[1:]
    ways = {}
    for one in given:
        name, _, address = one.partition("=")
        host, _, port = address.rpartition(":")
        ways[name] = (host, int(port))
    listener = socket.create_server(("127.0.0.1", 0))
    say(str(listener.getsockname()[1]))
    while True:
        client, _ = listener.accept()
        threading.Thread(target=serve, args=(client, login, ways), daemon=True).start()


if __name__ == "__main__":
    main()
