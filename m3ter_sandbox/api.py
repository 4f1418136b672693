"""A loopback m3ter API over real HTTP: as strict as m3ter documents itself to be."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from threading import Lock

from flask import Blueprint, Flask, Response, request

from m3ter_dagster.model.entities import entities
from m3ter_sandbox.access import Clock, Credentials, RequestLimit, Tokens, authentication
from m3ter_sandbox.answers import OFFSET, Cursor, add_error_answers, compressed
from m3ter_sandbox.list_routes import list_routes
from m3ter_sandbox.lists import entity_lists
from m3ter_sandbox.loopback import LoopbackServer, Startable
from m3ter_sandbox.records import Records
from m3ter_sandbox.values import Record

LOG_LENGTH = 200_000
ORGANIZATION_ID = "5a7d0c0e-0000-4000-a000-000000000001"


@dataclass(frozen=True)
class LoggedRequest:
    method: str
    path: str
    query: str
    status: int


class SandboxApi(Startable):
    """Serves `records`, pairs of entity name and API record, from `start` to `close` or inside a `with`.

    They may be changed meanwhile: `api.records.delete("account", id)`.
    """

    def __init__(
        self,
        records: Iterable[tuple[str, Record]],
        *,
        organization_id: str = ORGANIZATION_ID,
        key: str = "sandbox-key",
        secret: str = "sandbox-secret",
        requests_per_second: int | None = 50,
        token_lifetime: float = 18_000,
        clock: Clock = time.time,
        cursor: Cursor = OFFSET,
        port: int = 0,
        further_routes: Sequence[Blueprint] = (),
    ) -> None:
        self.organization_id = organization_id
        self.key = key
        self.secret = secret
        self.requests: deque[LoggedRequest] = deque(maxlen=LOG_LENGTH)
        self.before_answer: Callable[[str, str], None] | None = None
        """Called with path and query before a list or a single record is answered, so that a test can change records
        while they are read; never by two requests at once. An HTTPException that it raises is the answer."""
        self._lock = Lock()
        self._tokens = Tokens(clock, lifetime=token_lifetime)
        limit = RequestLimit(clock, per_second=requests_per_second)
        app = Flask(__name__, static_folder=None)
        app.register_blueprint(authentication(Credentials(key, secret), organization_id, self._tokens, limit))
        lists = entity_lists(entities().values())
        self.records = Records(records, lists)
        routes_of_lists = list_routes(lists.values(), self.records, clock, cursor)
        routes_of_lists.before_request(self._prepare)
        for routes in (routes_of_lists, *further_routes):
            app.register_blueprint(routes, url_prefix=f"/organizations/{organization_id}")
        add_error_answers(app)
        app.after_request(self._log)
        self.app = app
        self._server = LoopbackServer(app, port=port)
        self.base_url = self._server.url

    @property
    def environment(self) -> dict[str, str]:
        return {
            "M3TER_API_KEY": self.key,
            "M3TER_API_SECRET": self.secret,
            "M3TER_ORG_ID": self.organization_id,
            "M3TER_BASE_URL": self.base_url,
        }

    def revoke_tokens(self) -> None:
        """From now on every token issued so far is refused."""
        self._tokens.revoke_all()

    def start(self) -> None:
        self._server.start()

    def close(self) -> None:
        self._server.close()

    def _prepare(self) -> None:
        with self._lock:
            if self.before_answer:
                path = request.path.removeprefix(f"/organizations/{self.organization_id}")
                self.before_answer(path, request.query_string.decode())

    def _log(self, response: Response) -> Response:
        query = request.query_string.decode()
        self.requests.append(LoggedRequest(request.method, request.path, query, response.status_code))
        return compressed(response)
