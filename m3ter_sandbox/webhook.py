"""What a webhook would have been sent: kept, printed, and shown on a page on which an export can be made to fail."""

from __future__ import annotations

import html
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from flask import Flask, redirect, render_template_string, request
from werkzeug.exceptions import Forbidden

from m3ter_sandbox.loopback import LoopbackServer, Startable

if TYPE_CHECKING:
    from werkzeug.wrappers import Response

    from m3ter_sandbox.api import SandboxApi

REFUSED = "/commitments"
"""The list that m3ter refuses while exports are to fail."""
PAGE = """\
<!doctype html>
<meta http-equiv="refresh" content="5">
<title>Sandbox: webhook</title>
<style>body { font: 15px sans-serif; margin: 2em auto; max-width: 50em } pre { background: #eee; padding: 1em;
white-space: pre-wrap }</style>
<h1>What the webhook was sent</h1>
<form method="post" action="/fault"><p>
{% if fails %}m3ter refuses the list of commitments now. Materialize commitment: its message is here within a minute.
<button>Let m3ter answer again</button>
{% else %}Want to see an export fail? <button>Let m3ter refuse the list of commitments</button>{% endif %}
</p></form>
<p>Exports of everything and those of the schedule finance have commitments, too.</p>
{% for moment, text in messages|reverse %}<p>{{ moment }} UTC</p><pre>{{ text }}</pre>
{% else %}<p>Nothing yet.</p>{% endfor %}
"""


class WebhookInbox(Startable):
    """The receiving end of a webhook like Slack's, at `url`; its page is at `page`."""

    def __init__(self, api: SandboxApi) -> None:
        self.messages: list[tuple[str, str]] = []
        """The time and the text of each."""
        self._api = api
        app = Flask(__name__, static_folder=None)
        app.post("/webhook")(self._take)
        app.post("/fault")(self._switch)
        app.get("/")(self._show)
        self._server = LoopbackServer(app)
        self.page = f"{self._server.url}/"
        self.url = f"{self._server.url}/webhook"

    def start(self) -> None:
        self._server.start()

    def close(self) -> None:
        self._server.close()

    def _take(self) -> str:
        text = html.unescape(request.get_json()["text"])
        self.messages.append((f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S}", text))
        print(f"\n--- to the webhook ---\n{text}\n----------------------\n", file=sys.stderr, flush=True)
        return "ok"

    def _switch(self) -> Response:
        self._api.before_answer = None if self._api.before_answer else _refuse
        return redirect("/", 303)

    def _show(self) -> str:
        return render_template_string(PAGE, messages=self.messages, fails=self._api.before_answer is not None)


def _refuse(path: str, query: str) -> None:  # noqa: ARG001
    if path == REFUSED:
        raise Forbidden("The service user may not read commitments.")
