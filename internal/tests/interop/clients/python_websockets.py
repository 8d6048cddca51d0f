import asyncio
import os
import sys

import websockets

from script import check, script

url, extension, end = sys.argv[1:]


async def main():
    ws = await websockets.connect(url, max_size=None)
    names = [e.name for e in ws.extensions]
    check(names == [extension] if extension else not names, f"extensions {names}")
    for parts in script():
        await ws.send(parts if len(parts) > 1 else parts[0])
        want = parts[0][:0].join(parts)
        check(await ws.recv() == want, f"a message of {len(want)} came back otherwise")
    if end == "abrupt":
        os._exit(0)
    await ws.close(1000, "done")
    check(ws.close_code == 1000, f"closed with {ws.close_code}")


asyncio.run(main())
