"""The script of the clients in Python."""


def script():
    """Yields the messages, each a list of parts for clients that can send them as fragments."""
    for n in (1, 125, 126, 65535, 65536, 1 << 20):
        text = ("0123456789abcdef" * (n // 16 + 1))[:n]
        yield [text]
        yield [text.encode().replace(b"0", b"\xff")]
    yield ["κόσμε", "", " ", "😀"]
    yield [b"\x00\xfe", b"", b"\xff"]


def check(ok, what):
    if not ok:
        raise SystemExit(what)
