import os
import socket
import sys
from urllib.parse import urlsplit

from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, BytesMessage, CloseConnection, Request, TextMessage
from wsproto.extensions import PerMessageDeflate

from script import check, script

url, extension, end = sys.argv[1:]
target = urlsplit(url)
sock = socket.create_connection((target.hostname, target.port))
ws = WSConnection(ConnectionType.CLIENT)
events = ws.events()


def receive():
    """Returns the next event."""
    for event in ws.events():
        return event
    ws.receive_data(sock.recv(65536) or None)
    return receive()


def message():
    """Returns the next message, put together."""
    parts = []
    while True:
        event = receive()
        check(isinstance(event, (TextMessage, BytesMessage)), f"got {event}")
        parts.append(event.data)
        if event.message_finished:
            return type(event.data)().join(parts)


sys.setrecursionlimit(100_000)
offer = PerMessageDeflate()
sock.sendall(ws.send(Request(host=target.netloc, target=target.path, extensions=[offer])))
accepted = receive()
check(isinstance(accepted, AcceptConnection), f"got {accepted}")
names = [e.name for e in accepted.extensions]
check(names == [extension] if extension else not names, f"extensions {names}")
for parts in script():
    kind = TextMessage if isinstance(parts[0], str) else BytesMessage
    for i, part in enumerate(parts):
        sock.sendall(ws.send(kind(data=part, message_finished=i == len(parts) - 1)))
    want = parts[0][:0].join(parts)
    check(message() == want, f"a message of {len(want)} came back otherwise")
if end == "abrupt":
    os._exit(0)
sock.sendall(ws.send(CloseConnection(code=1000, reason="done")))
closed = receive()
check(isinstance(closed, CloseConnection) and closed.code == 1000, f"got {closed}")
