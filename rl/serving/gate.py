"""Who may ask, how much and how long: what stands before every route of the endpoint.

A pure ASGI middleware, so that streams pass through it as they are. It knows keys only as digests, and its log holds
neither keys nor what was asked or answered.
"""

import asyncio
import json
import logging
import secrets
import time
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rl.serving.keys import Keyring
from rl.serving.wire import ChatError

OPEN = ("/health", "/metrics")
"""Routes that ask for no key; they tell nothing of what is asked or answered."""

caller: ContextVar[str] = ContextVar("caller", default="")
"""The label of the key that the request under way came with; empty without keys."""

log = logging.getLogger("apprentice.access")


def log_to_stderr() -> None:
    """Write the access log, a JSON object a line, to this process's standard error; once."""
    if not log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(handler)
        log.setLevel(logging.INFO)
        log.propagate = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one process of the endpoint takes on."""

    max_body: int = 1_000_000
    """Bytes of a request."""
    concurrency: int = 256
    """Requests under way at once; further ones are told to come back."""
    per_minute: int | None = None
    """Requests of one key, or of all who have none, in a minute."""
    timeout: float = 300.0
    """Seconds until the first byte of a response."""
    retry_after: int = 2
    """Seconds after which who was turned away may try again."""


@dataclass(slots=True)
class _Bucket:
    """Requests that may still be made, refilled evenly."""

    left: float
    at: float = field(default_factory=time.monotonic)

    def take(self, per_minute: int) -> float:
        """Seconds until there is room; 0 where there is, and it is taken."""
        now = time.monotonic()
        self.left = min(float(per_minute), self.left + (now - self.at) * per_minute / 60)
        self.at = now
        if self.left >= 1:
            self.left -= 1
            return 0.0
        return (1 - self.left) * 60 / per_minute


class Figures:
    """What the endpoint has done, in Prometheus's form."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "apprentice_serve_requests", "Requests by route and status", ["route", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "apprentice_serve_seconds",
            "Seconds of whole responses",
            ["route"],
            registry=self.registry,
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300),
        )
        self.first = Histogram(
            "apprentice_serve_first_byte_seconds",
            "Seconds until a response began",
            ["route"],
            registry=self.registry,
            buckets=(0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100),
        )
        self.policies = Counter(
            "apprentice_serve_policy_answers",
            "Answers by policy and status",
            ["policy", "status"],
            registry=self.registry,
        )
        self.version = Gauge(
            "apprentice_serve_version", "Step of the weights that answer", ["policy"], registry=self.registry
        )
        self.under_way = Gauge("apprentice_serve_under_way", "Requests under way", registry=self.registry)

    def text(self) -> bytes:
        """As Prometheus reads them."""
        return generate_latest(self.registry)


class Gate:
    """The middleware."""

    def __init__(
        self, app: ASGIApp, *, limits: Limits, keys: Keyring, figures: Figures, routes: frozenset[str]
    ) -> None:
        """
        Args:
            app: what is behind.
            limits: see ``Limits``.
            keys: who has none of them is refused, unless none are required.
            figures: counts what passes.
            routes: that are counted by name; all others are counted as one.
        """
        self._app = app
        self._limits = limits
        self._keys = keys
        self._figures = figures
        self._routes = routes
        self._under_way = 0
        self._buckets: dict[str, _Bucket] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        passage = _Passage(send, secrets.token_hex(8), self._limits.retry_after)
        began = time.monotonic()
        headers = {name.lower(): value for name, value in scope["headers"]}
        label = self._label(headers.get(b"authorization", b""))
        caller.set((label or "") if self._keys.required else "")
        try:
            refusal = self._refusal(scope["path"], label, headers)
            if refusal is not None:
                await passage.refuse(refusal)
                return
            self._under_way += 1
            self._figures.under_way.set(self._under_way)
            try:
                await self._pass(scope, receive, passage)
            finally:
                self._under_way -= 1
                self._figures.under_way.set(self._under_way)
        finally:
            self._note(scope, passage, label, began)

    async def _pass(self, scope: Scope, receive: Receive, passage: "_Passage") -> None:
        bounded = _Bounded(receive, self._limits.max_body)
        answering = asyncio.ensure_future(self._app(scope, bounded.receive, passage.send))
        begun = asyncio.ensure_future(passage.begun.wait())
        await asyncio.wait({answering, begun}, timeout=self._limits.timeout, return_when=asyncio.FIRST_COMPLETED)
        begun.cancel()
        late = not answering.done() and not passage.begun.is_set()
        if late or (bounded.exceeded and not passage.begun.is_set()):
            answering.cancel()
            await asyncio.wait({answering})
            error = (
                ChatError(f"no answer within {self._limits.timeout:g} s", status=503, code="timeout")
                if late
                else self._too_large()
            )
            await passage.refuse(error)
            return
        try:
            await answering
        except _TooLargeError:
            await passage.refuse(self._too_large())

    def _refusal(self, path: str, label: str | None, headers: Mapping[bytes, bytes]) -> ChatError | None:
        if path in OPEN:
            return None
        if label is None:
            return ChatError(
                "the API key is missing or unknown; send 'Authorization: Bearer KEY'",
                status=401,
                code="invalid_api_key",
            )
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._limits.max_body:
            return self._too_large()
        if self._under_way >= self._limits.concurrency:
            return ChatError(
                f"{self._under_way} requests are under way; try again", status=429, code="too_many_requests"
            )
        if self._limits.per_minute is not None:
            bucket = self._buckets.setdefault(label, _Bucket(float(self._limits.per_minute)))
            if (wait := bucket.take(self._limits.per_minute)) > 0:
                return ChatError(
                    f"{label} may make {self._limits.per_minute} requests a minute; the next in {wait:.1f} s",
                    status=429,
                    code="rate_limit_exceeded",
                )
        return None

    def _too_large(self) -> ChatError:
        return ChatError(f"a request may have {self._limits.max_body:,} bytes", status=413, code="request_too_large")

    def _label(self, authorization: bytes) -> str | None:
        """Who asks; None where that is nobody who may."""
        if not self._keys.required:
            return "anyone"
        kind, _, key = authorization.decode("latin-1").partition(" ")
        return self._keys.label(key.strip() if kind.lower() == "bearer" else "")

    def _note(self, scope: Scope, passage: "_Passage", label: str | None, began: float) -> None:
        took = time.monotonic() - began
        route = scope["path"] if scope["path"] in self._routes else "other"
        self._figures.requests.labels(route, str(passage.status)).inc()
        self._figures.seconds.labels(route).observe(took)
        if passage.first is not None:
            self._figures.first.labels(route).observe(passage.first - began)
        entry = {
            "request": passage.id,
            "method": scope["method"],
            "route": route,
            "status": passage.status,
            "key": label,
            "bytes": passage.bytes,
            "ms": round(1000 * took, 1),
        }
        log.info(json.dumps(entry))


class _Passage:
    """One response on its way out."""

    def __init__(self, send: Send, id: str, retry_after: int) -> None:
        self._send = send
        self._retry_after = retry_after
        self.id = id
        self.status = 499  # until there is one: the caller went away
        self.bytes = 0
        self.first: float | None = None
        self.begun = asyncio.Event()

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            self.first = time.monotonic()
            self.begun.set()
            headers = [*message.get("headers", ()), (b"x-request-id", self.id.encode())]
            message = {**message, "headers": headers}
        else:
            self.bytes += len(message.get("body", b""))
        await self._send(message)

    async def refuse(self, error: ChatError) -> None:
        """Answer with an error."""
        body = json.dumps(error.body()).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        if error.status in (429, 503):
            headers.append((b"retry-after", str(self._retry_after).encode()))
        if error.status == 401:
            headers.append((b"www-authenticate", b"Bearer"))
        await self.send({"type": "http.response.start", "status": error.status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})


class _TooLargeError(Exception):
    """A body that is longer than it may be, found while it is read."""


class _Bounded:
    """A request's body, up to a limit, whatever its headers say."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._left = limit
        self.exceeded = False

    async def receive(self) -> Message:
        message: dict[str, Any] = dict(await self._receive())
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            self.exceeded = True
            raise _TooLargeError
        return message
