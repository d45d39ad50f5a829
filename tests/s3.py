"""An S3 server of our own: moto's, in a process that can go away and come back with all it holds."""

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
import uuid

REFUSING, FAILING, HANGING, BACK = "refuse", "fail", "hang", "back"


class Server:
    """Listens on this machine alone. Whoever has its environment finds it."""

    def __init__(self) -> None:
        self._port, self._state = free_port(), BACK
        self.environment = {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self._port}",
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": "hush",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1",
        }
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(self._port)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            start_new_session=True,
        )
        self._told()

    def bucket(self) -> str:
        """The address of a new one."""
        name = f"lab-{uuid.uuid4().hex[:12]}"
        self.put(name)
        return f"s3://{name}"

    def put(self, path: str, content: bytes = b"") -> None:
        """An object, as another process would put it."""
        address, plain = f"{self.environment['AWS_ENDPOINT_URL']}/{path}", {"Content-Type": "binary/octet-stream"}
        request = urllib.request.Request(address, content, plain, method="PUT")
        urllib.request.urlopen(request, timeout=20).close()

    def away(self, how: str = REFUSING) -> None:
        """Refuses connections, fails every request (503), or answers nothing."""
        self._state = how
        if how == HANGING:
            self._process.send_signal(signal.SIGSTOP)
        else:
            self._tell(how)

    def back(self) -> None:
        """As before, wherever it was."""
        self._process.send_signal(signal.SIGCONT)
        if self._state in (REFUSING, FAILING):
            self._tell(BACK)
        self._state = BACK

    def close(self) -> None:
        self._process.kill()
        with self._process:
            pass

    def _tell(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{word}\n")
        self._process.stdin.flush()
        self._told()

    def _told(self) -> None:
        assert self._process.stdout is not None and self._process.stdout.readline() == "done\n"


def free_port() -> int:
    """None of those that the system gives to whoever connects, which might take it while nobody listens."""
    for port in random.SystemRandom().sample(range(12_000, 30_000), 100):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    raise OSError("no port is free")


def serve(port: int) -> None:
    """Does as it is told on stdin, until that ends."""
    import logging

    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server
    from werkzeug.wrappers import Response

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    store, state = DomainDispatcherApplication(create_backend_app), BACK

    def application(environ, start):
        if state == FAILING:
            return Response(status=503)(environ, start)
        return store(environ, start)

    while True:
        listening = make_server("127.0.0.1", port, application, threaded=True) if state != REFUSING else None
        if listening is not None:
            threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        print("done", flush=True)
        if not (line := sys.stdin.readline()):
            os._exit(0)
        state = line.strip()
        if listening is not None:
            listening.shutdown()
            listening.server_close()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
