"""How every answer looks: JSON, errors as `{"message": ...}`, compressed if the client takes gzip."""

from __future__ import annotations

import gzip

import msgspec
from flask import Flask, Response, request
from werkzeug.exceptions import BadRequest, HTTPException

from m3ter_sandbox.parameters import InvalidParameter

WORTH_COMPRESSING = 1_400


def json_answer(content: object, status: int = 200) -> Response:
    return Response(msgspec.json.encode(content), status, content_type="application/json")


def error_answer(error: HTTPException) -> Response:
    return json_answer({"message": error.description or error.name}, error.code or 500)


def add_error_answers(app: Flask) -> None:
    app.register_error_handler(HTTPException, error_answer)
    app.register_error_handler(InvalidParameter, lambda error: error_answer(BadRequest(str(error))))


def compressed(response: Response) -> Response:
    content = response.get_data()
    if "gzip" in request.accept_encodings and len(content) >= WORTH_COMPRESSING:
        response.set_data(gzip.compress(content, compresslevel=1, mtime=0))
        response.headers["Content-Encoding"] = "gzip"
        response.headers["Vary"] = "Accept-Encoding"
    return response
