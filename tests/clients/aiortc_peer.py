"""A WebRTC peer by aiortc that does what it is told, one line of JSON in, one line of JSON out.

The first argument is its configuration: {"urls": [...], "username": ..., "credential": ...}.
The Chromium peer understands the same words, so that either can call the other.
"""

import asyncio
import json
import sys
import time

from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription
from aiortc.rtcconfiguration import RTCIceTransportPolicy


def payload(number, size):
    return number.to_bytes(4, "big") + bytes((number + i) % 256 for i in range(size - 4))


class Peer:
    def __init__(self, urls, username, credential, **_):
        server = RTCIceServer(urls=urls, username=username, credential=credential)
        self.pc = RTCPeerConnection(
            RTCConfiguration([server], iceTransportPolicy=RTCIceTransportPolicy.RELAY)
        )
        self.received = 0
        self.replies = asyncio.Queue()
        self.open = asyncio.Event()
        self.channel = None
        self.pc.on("datachannel", self.answer_channel)

    def answer_channel(self, channel):
        @channel.on("message")
        def echo(message):
            self.received += len(message)
            channel.send(message)

    def local(self):
        description = self.pc.localDescription
        return {"type": description.type, "sdp": description.sdp}

    async def offer(self, **_):
        self.channel = self.pc.createDataChannel("echo")
        self.channel.on("open", self.open.set)
        self.channel.on("message", self.replies.put_nowait)
        await self.pc.setLocalDescription(await self.pc.createOffer())
        return {"description": self.local()}

    async def answer(self, description, **_):
        await self.pc.setRemoteDescription(RTCSessionDescription(**description))
        await self.pc.setLocalDescription(await self.pc.createAnswer())
        return {"description": self.local()}

    async def accept(self, description, **_):
        await self.pc.setRemoteDescription(RTCSessionDescription(**description))
        return {}

    async def echo(self, count, size, **_):
        """Sends numbered messages, all at once, and compares each answer with what was sent."""
        await self.open.wait()
        started = time.monotonic()
        for number in range(count):
            self.channel.send(payload(number, size))
        for number in range(count):
            reply = await self.replies.get()
            if reply != payload(number, size):
                raise ValueError(f"message {number} came back as {reply[:16]!r}...")
        return {"echoed": count, "ms": round((time.monotonic() - started) * 1000)}

    async def stats(self, **_):
        """Tells what came in by data channels, and by which candidate."""
        connection = self.pc.sctp.transport.transport._connection
        pair = connection._nominated[1]
        return {
            "received": self.received,
            "candidate": pair.local_candidate.type,
            "state": self.pc.iceConnectionState,
        }


async def main():
    peer = Peer(**json.loads(sys.argv[1]))
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        words = json.loads(line)
        try:
            reply = await getattr(peer, words["do"])(**words)
        except Exception as error:  # whatever it is, the test is to read it
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), flush=True)
    await peer.pc.close()


asyncio.run(main())
