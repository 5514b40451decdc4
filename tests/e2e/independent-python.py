"""The `live` vectors played by `websockets` in Python: a client that shares no code with ours.

Settings come as JSON in its environment; a line `kill` asks for the gateway's death, one back says
that it runs again, and `done` is the end. The Node one beside it does the same.
"""

import contextlib
import json
import os
import socket
import sys

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

SETTINGS = json.loads(os.environ["INDEPENDENT"])


CONNECTIONS = contextlib.ExitStack()


class Peer:
    """A connection whose frames wait by their `op`."""

    def __init__(self):
        connection = connect(SETTINGS["url"], subprotocols=["isthmus.v1.json"], max_size=None)
        self.socket = CONNECTIONS.enter_context(connection)
        self.frames = []

    def send(self, frame):
        self.socket.send(json.dumps(frame))

    def take(self, op):
        while True:
            for at, frame in enumerate(self.frames):
                if frame["op"] == op:
                    return self.frames.pop(at)
            try:
                self.frames.append(json.loads(self.socket.recv(timeout=20)))
            except TimeoutError as error:
                raise AssertionError(f"no {op}: {self.frames}") from error

    def cut(self):
        self.socket.socket.shutdown(socket.SHUT_RDWR)

    def wait_for_end(self):
        try:
            while True:
                self.socket.recv(timeout=20)
        except ConnectionClosed:
            pass


def filled(frame, names):
    def known(value):
        return names.get(value, value) if isinstance(value, str) else value

    return {name: known(value) for name, value in frame.items()}


def check(expected, frame, names):
    for name, value in expected.items():
        if isinstance(value, str) and value.startswith("$"):
            names.setdefault(value, frame.get(name))
    for name, value in filled(expected, names).items():
        assert name in frame and frame[name] == value, f"{name}: {value!r} expected in {frame!r}"


def play(steps):
    names = dict(SETTINGS["names"])
    peer = None
    for step in steps:
        if "open" in step:
            peer = Peer()
        if "client" in step:
            peer.send(filled(step["client"], names))
        if "server" in step:
            check(step["server"], peer.take(step["server"]["op"]), names)
        if "cut" in step:
            peer.cut()
        if "kill" in step:
            print("kill", flush=True)
            sys.stdin.readline()
        if "cut" in step or "kill" in step:
            peer.wait_for_end()
    peer.cut()


with open(SETTINGS["vectors"], encoding="utf-8") as file:
    with CONNECTIONS:
        for session in json.load(file)["live"]:
            play(session["steps"])
print("done", flush=True)
