"""A small proxy before one prefill and one decode server of vLLM or SGLang.

    python proxy.py vllm-nixl|vllm-mooncake|sglang [--port 8000] [--prefill URL] [--decode URL]
        [--bootstrap URL]

Clients talk to it as they would to one server. It gives each request to both servers, with the
fields by which these find each other's KV cache, and passes on what decode answers. It shows what
the fields are; it does not balance loads, nor survive faults.
"""

from __future__ import annotations

import argparse
import http.client
import json
import random
import threading
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

Request = dict[str, Any]

# Until a server has answered: a long prompt on a busy CPU.
PATIENCE_S = 300.0


class Pair:
    """A prefill and a decode server."""

    def __init__(self, prefill: str, decode: str, bootstrap: str) -> None:
        self.prefill = prefill
        self.decode = decode
        # The bootstrap server of prefill; vLLM's NixlConnector has none.
        self.bootstrap = bootstrap

    def ask(self, path: str, prefill: Request, decode: Request) -> http.client.HTTPResponse:
        """Gives the servers a request each, which clients would see as one, and returns the answer
        of decode."""
        raise NotImplementedError


class VllmNixl(Pair):
    """vLLM with NixlConnector: prefill first. Its answer says where the KV cache lies."""

    def ask(self, path: str, prefill: Request, decode: Request) -> http.client.HTTPResponse:
        wish = {"do_remote_decode": True, "do_remote_prefill": False}
        with post(self.prefill + path, one_token(prefill, kv_transfer_params=wish)) as answer:
            found = json.load(answer)["kv_transfer_params"]
        return post(self.decode + path, {**decode, "kv_transfer_params": found})


class VllmMooncake(Pair):
    """vLLM with MooncakeConnector: both at once, with a common name for the transfer."""

    def ask(self, path: str, prefill: Request, decode: Request) -> http.client.HTTPResponse:
        with urllib.request.urlopen(self.bootstrap + "/query", timeout=PATIENCE_S) as answer:
            engines = json.load(answer)
        transfer = str(uuid.uuid4())
        send = {
            "do_remote_decode": True,
            "do_remote_prefill": False,
            "transfer_id": transfer,
        }
        receive = {
            "do_remote_decode": False,
            "do_remote_prefill": True,
            "transfer_id": transfer,
            "remote_bootstrap_addr": self.bootstrap,
            "remote_engine_id": engines["0"]["engine_id"],
        }
        both = one_token(prefill, kv_transfer_params=send)
        return post_both(
            (self.prefill + path, both),
            (self.decode + path, {**decode, "kv_transfer_params": receive}),
        )


class Sglang(Pair):
    """SGLang: both at once, with the same room."""

    def ask(self, path: str, prefill: Request, decode: Request) -> http.client.HTTPResponse:
        bootstrap = urlsplit(self.bootstrap)
        room = {
            "bootstrap_host": bootstrap.hostname,
            "bootstrap_port": bootstrap.port,
            "bootstrap_room": random.getrandbits(63),
        }
        return post_both(
            (self.prefill + path, {**prefill, **room, "stream": False}),
            (self.decode + path, {**decode, **room}),
        )


PAIRS: dict[str, Callable[[str, str, str], Pair]] = {
    "vllm-nixl": VllmNixl,
    "vllm-mooncake": VllmMooncake,
    "sglang": Sglang,
}


def main() -> None:
    """Serves until it is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("pair", choices=PAIRS)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--prefill", default="http://127.0.0.1:8100")
    parser.add_argument("--decode", default="http://127.0.0.1:8200")
    parser.add_argument("--bootstrap", default="http://127.0.0.1:8998")
    options = parser.parse_args()
    pair = PAIRS[options.pair](options.prefill, options.decode, options.bootstrap)
    server = Server(("127.0.0.1", options.port), pair)
    print(f"{options.pair}: http://127.0.0.1:{options.port}", flush=True)
    server.serve_forever()


class Server(ThreadingHTTPServer):
    """A thread a client."""

    def __init__(self, address: tuple[str, int], pair: Pair) -> None:
        super().__init__(address, Handler)
        self.pair = pair


class Handler(BaseHTTPRequestHandler):
    """One client's connection."""

    server: Server
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Health, models, and the like are decode's."""
        self.pass_on(lambda: open_url(self.server.pair.decode + self.path))

    def do_POST(self) -> None:
        """A request for tokens."""
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            request = json.loads(body)
        except ValueError as error:
            self.send_error(400, str(error))
            return
        self.pass_on(lambda: self.server.pair.ask(self.path, request, request))

    def pass_on(self, ask: Callable[[], http.client.HTTPResponse]) -> None:
        """Sends the client what a server answers, as it comes."""
        try:
            answer = ask()
        except urllib.error.HTTPError as error:
            self.send_error(error.code, f"{error.url}: {error.read().decode(errors='replace')}")
            return
        except (OSError, ValueError, KeyError) as error:
            self.send_error(502, f"{type(error).__name__}: {error}")
            return
        with answer:
            self.send_response(answer.status)
            self.send_header("Content-Type", answer.headers.get("Content-Type", "text/plain"))
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            while piece := answer.read1(1 << 16):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
            self.wfile.write(b"0\r\n\r\n")


def one_token(request: Request, **fields: Any) -> Request:
    """A request to vLLM's prefill: one token, which decode then makes again."""
    request = {**request, **fields, "max_tokens": 1, "stream": False}
    for field in ("stream_options", "max_completion_tokens", "min_tokens"):
        request.pop(field, None)
    return request


def post_both(
    prefill: tuple[str, Request], decode: tuple[str, Request]
) -> http.client.HTTPResponse:
    """Posts both at once, and returns the answer of decode. What keeps prefill from answering, keeps
    decode from it too, and decode tells."""
    aside = threading.Thread(target=post_and_forget, args=prefill, daemon=True)
    aside.start()
    return post(*decode)


def post_and_forget(url: str, request: Request) -> None:
    """Reads the answer to its end, and says so if it is an error."""
    try:
        with post(url, request) as answer:
            answer.read()
    except OSError as error:
        print(f"{url}: {error}", flush=True)


def post(url: str, request: Request) -> http.client.HTTPResponse:
    """Posts JSON."""
    headers = {"Content-Type": "application/json"}
    return open_url(urllib.request.Request(url, json.dumps(request).encode(), headers))


def open_url(url: str | urllib.request.Request) -> http.client.HTTPResponse:
    """Opens a URL; an answer that is an error is raised."""
    answer: http.client.HTTPResponse = urllib.request.urlopen(url, timeout=PATIENCE_S)
    return answer


if __name__ == "__main__":
    main()
