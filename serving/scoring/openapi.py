"""The service's OpenAPI document: typed paths for each model, built from its contract, with all responses.

Belongs here: JSON Schema for the input of ``request_parsing.py`` and the responses of ``service.py``. Does not belong
here: deciding what is accepted or returned.

Rules that JSON Schema cannot express are described in words: a moment is not in the future, the keys in one request are
unique, fewer rows may be explained than scored, and the values that a declaration's ``clean`` refuses. FastAPI would
generate the document from Python types. The rows of a model have no Python type; their type is the contract, which is
part of the model version.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from typing import Any

from assets.declaration import Model
from assets.lifecycle.data.features import features_of
from assets.lifecycle.model.explain import SCALES, TOLERANCE
from assets.lifecycle.prediction_format import format_of
from assets.lifecycle.ranking.ranker import FEATURES
from serving.scoring.access import OPEN_PATHS
from serving.scoring.answers import MOST_CHARACTERS
from serving.scoring.ranking import RankRequest
from serving.scoring.request_parsing import ARRIVED_AT, RequestParser

Schema = dict[str, Any]

MOST_DIGITS = 10**18 - 1
"""Largest whole number that is accepted: 18 digits, which always fit into 64 bits."""
_ERROR: Schema = {
    "type": "object",
    "required": ["detail"],
    "properties": {"detail": {"type": "string", "description": "What is wrong and how to fix it."}},
}
_PROBLEM: Schema = {
    "type": "object",
    "required": ["row", "column", "value", "problem", "right"],
    "properties": {
        "row": {"type": "integer", "description": "Position in the request, from 0."},
        "column": {"type": "string"},
        "value": {"description": "The value that was sent."},
        "problem": {"type": "string"},
        "right": {"type": "string", "description": "The values that are accepted."},
    },
}
_REFUSED: Schema = {
    **_ERROR,
    "properties": {**_ERROR["properties"], "problems": {"type": "array", "items": _PROBLEM}},
}
_STATUS = {"type": "string", "enum": ["ok", "waiting", "degraded"]}
_ENDPOINT: Schema = {
    "type": "object",
    "required": ["status", "version", "problem"],
    "properties": {
        "status": _STATUS,
        "version": {"type": ["string", "null"], "description": "Model version that serves; null: none yet."},
        "since": {"type": "string", "format": "date-time"},
        "problem": {"type": ["string", "null"]},
        "past": {
            "type": "object",
            "properties": {
                "rows": {"type": "integer"},
                "until": {"type": ["string", "null"], "format": "date"},
            },
        },
    },
}
_RETRY_AFTER = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}


def document(
    title: str,
    version: str,
    served: Mapping[str, Model],
    max_rows: int,
    max_bytes: int,
    max_explained: int,
    *,
    secured: bool = False,
) -> Schema:
    """The OpenAPI 3.1 document of a service for these models.

    Args:
        title, version: title and version of the service.
        served: by model name, the declaration of the served version, or the current one if no version serves.
        max_rows, max_bytes: limits of one request.
        max_explained: maximum number of rows of a request that asks for explanations.
        secured: whether requests need a bearer token.
    """
    access = _object(auth={"enum": ["token", "off"]}, problem={"type": ["string", "null"]})
    endpoints = {"type": "object", "additionalProperties": _ref("Endpoint")}
    names = {"type": "array", "items": {"type": "string"}}
    health = _object(status=_STATUS, serving=names, waiting=names, models=endpoints, access=access)
    named: Schema = {"allOf": [_ref("Endpoint"), _object(name={"type": "string"})]}
    paths: Schema = {
        "/health": {
            "get": _operation("health", "Status of each model's endpoint", ok=health)
            | {
                "description": "Always 200, because the process is healthy. `serving` names the models that have a "
                "version, `waiting` those of which none is deployed. The status is `waiting` while no model serves."
            }
        },
        "/livez": {"get": _operation("livez", "Whether the process runs", ok=_object(status={"const": "ok"}))},
        "/readyz": {"get": _readiness()},
        "/models": {"get": _operation("models", "The served models", ok={"type": "array", "items": named})},
        "/metrics": {
            "get": {
                "operationId": "metrics",
                "summary": "Metrics for Prometheus",
                "responses": {"200": {"description": "Metrics.", "content": {"text/plain": {"schema": _TEXT}}}},
            }
        },
    }
    schemas: Schema = {"Error": _ERROR, "Refused": _REFUSED, "Endpoint": _ENDPOINT}
    for name, model in served.items():
        if model.ranking is not None:
            paths |= _paths_of_ranking(model, max_rows, max_bytes)
            continue
        row, response = f"{name}_row", f"{name}_answer"
        schemas[row], schemas[response] = row_schema(model), answer_schema(model)
        schemas[f"{name}_explanation"] = explanation_schema(model)
        paths |= _paths_of(model, row, response, max_rows, max_bytes, max_explained)
        paths |= _answer_path(name, max_bytes) if model.answers else {}
    described: Schema = {
        "openapi": "3.1.0",
        "info": {"title": title, "version": version},
        "paths": paths,
        "components": {"schemas": schemas},
    }
    return _secured(described) if secured else described


def _secured(described: Schema) -> Schema:
    """Adds the security scheme and its responses to all operations but those of open paths.

    What is limited is a token, so the response to too many requests is one of them.
    """
    described["components"]["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    for path, operations in described["paths"].items():
        if path in OPEN_PATHS:
            continue
        for operation in operations.values():
            operation["security"] = [{"bearer": []}]
            operation["responses"]["401"] = {
                **_response("The request has no valid token.", _ref("Error")),
                "headers": {"WWW-Authenticate": {"description": "RFC 6750.", "schema": _TEXT}},
            }
            operation["responses"]["429"] = {
                **_response("The token has made too many requests.", _ref("Error")), "headers": _RETRY_AFTER,
            }  # fmt: skip
    return described


def row_schema(model: Model) -> Schema:
    """The schema of one raw row, with an example that is valid now."""
    parser = RequestParser(model)
    columns = {name: _column(parser, name) for name in parser.columns}
    required = [name for name in columns if name != ARRIVED_AT or model.table.time is None]
    example = {name: columns[name]["examples"][0] for name in required}
    return {
        "type": "object",
        "description": model.description,
        "required": required,
        "properties": columns,
        # Like a file, a row may have columns beyond the contract's; `clean` may or may not read them.
        "additionalProperties": {"type": ["string", "number", "boolean", "null"]},
        "examples": [example],
    }


def answer_schema(model: Model) -> Schema:
    """The schema of the response for one row."""
    prediction = format_of(model.task).schema()
    if model.forecast is not None:
        prediction |= {end: {"type": "number"} for end in ("low", "high")}
    text = {"type": "string"}
    keyed = {model.table.key: {"description": "The row's key."}}
    schema = _object(**keyed, **prediction, model=text, version=text)
    schema["properties"]["explanation"] = {"description": "With explain=true.", **_ref(f"{model.name}_explanation")}
    return schema


def explanation_schema(model: Model) -> Schema:
    """The schema of the explanation of one row's score."""
    number: Schema = {"type": "number"}
    if model.task.kind == "multiclass":
        number = _object(**dict.fromkeys(model.task.names, number))
    features = dict.fromkeys(features_of(model).explained, number)
    said = _object(
        scale={"const": SCALES[model.task.kind]}, base=number, contributions=_object(**features), output=number,
        score=number,
    )  # fmt: skip
    return {**said, "description": f"base + contributions = output, from which the score follows within {TOLERANCE}."}


def _paths_of(model: Model, row: str, response: str, max_rows: int, max_bytes: int, max_explained: int) -> Schema:
    name, names = model.name, features_of(model).names
    rows: Schema = {"type": "array", "items": _ref(row), "maxItems": max_rows}
    responses: Schema = {"type": "array", "items": _ref(response)}
    numbers: Schema = {"type": ["number", "null"], "minimum": -3e38, "maximum": 3e38}
    values: Schema = {"type": "array", "items": numbers, "minItems": len(names), "maxItems": len(names)}
    about = _object(
        name={"const": name},
        description={"type": "string"},
        version={"type": "string"},
        columns={"type": "object", "additionalProperties": {"type": "string"}},
        features={"type": "array", "items": {"type": "string"}},
    )
    taken = _object(features={"type": "array", "items": values, "maxItems": max_rows})
    scored = _object(scores={"type": "array"}, version={"type": "string"})
    scored["properties"]["explanations"] = {"type": "array", "items": _ref(f"{name}_explanation")}
    explain = {
        "name": "explain",
        "in": "query",
        "description": f"Whether to explain the scores, of at most {max_explained} rows.",
        "schema": {"enum": ["true", "false"]},
    }
    example = {"features": [[0.0] * len(names)]}
    return {
        f"/models/{name}": {"get": _operation(f"{name}_model", "What a row must contain", ok=about, waits=True)},
        f"/models/{name}/predict": {
            "post": _operation(
                f"{name}_predict",
                "Scores one raw row, or a list of them (all or none)",
                ok={"anyOf": [_ref(response), responses]},
                body={"anyOf": [_ref(row), rows]},
                waits=True,
                limits=f"more than {max_bytes:,} bytes",
                query=explain,
            )
        },
        f"/models/{name}/score": {
            "post": _operation(
                f"{name}_score",
                "Scores rows of features, in the declared order; null means missing. Nothing is recorded",
                ok=scored,
                body={**taken, "examples": [example]},
                waits=True,
                limits=f"more than {max_bytes:,} bytes",
                query=explain,
            )
        },
    }


def _answer_path(name: str, max_bytes: int) -> Schema:
    """The path of a model that declares answers."""
    question: Schema = {
        **_object(question={"type": "string", "maxLength": MOST_CHARACTERS}),
        "additionalProperties": False,
        "examples": [{"question": "What does a transfer cost?"}],
    }
    question["properties"]["context"] = {
        "type": "object", "description": "Columns of the contract; one that is left out is filled in.",
    }  # fmt: skip
    flag: Schema = {"type": "boolean"}
    cited = _object(**dict.fromkeys(("chunk", "document", "title", "updated", "text"), _TEXT))
    said = _object(
        reply=_TEXT, sentences={"type": "array", "items": _object(text=_TEXT, source=_TEXT)},
        citations={"type": "array", "items": cited}, abstained=flag, reason=_TEXT, contradiction=flag,
        written_by={"enum": ["templates", "model"]}, note=_TEXT, intent=_TEXT,
        probability={"type": "number", "minimum": 0, "maximum": 1}, model=_TEXT, version=_TEXT,
    )  # fmt: skip
    summary = "Answers a question with its sources, or hands it over with the reason"
    limits = f"more than {max_bytes:,} bytes"
    operation = _operation(f"{name}_answer", summary, ok=said, body=question, waits=True, limits=limits)
    return {f"/models/{name}/answer": {"post": operation}}


def _paths_of_ranking(model: Model, max_rows: int, max_bytes: int) -> Schema:
    name, limits = model.name, f"more than {max_bytes:,} bytes"
    numbers: Schema = {"type": ["number", "null"], "minimum": -3e38, "maximum": 3e38}
    values: Schema = {"type": "array", "items": numbers, "minItems": len(FEATURES), "maxItems": len(FEATURES)}
    item = _object(
        item=_TEXT, score={"type": "number"}, reason=_TEXT, propensity={"type": "number", "minimum": 0, "maximum": 1}
    )
    listed = _object(
        model={"const": name}, version=_TEXT, request_id=_TEXT, user=_TEXT, items={"type": "array", "items": item},
        unknown={"type": "array", "items": _TEXT},
    )  # fmt: skip
    asked = RankRequest.model_json_schema(ref_template="#/components/schemas/{model}")
    asked["properties"]["events"]["items"] = asked.pop("$defs")["SentEvent"]
    about = _object(
        name={"const": name}, description=_TEXT, version=_TEXT, features={"type": "array", "items": _TEXT},
        columns={"type": "object", "additionalProperties": _TEXT},
    )  # fmt: skip
    taken = _object(features={"type": "array", "items": values, "maxItems": max_rows})
    return {
        f"/models/{name}": {"get": _operation(f"{name}_model", "What a row must contain", ok=about, waits=True)},
        f"/models/{name}/rank": {
            "post": _operation(
                f"{name}_rank",
                "Ranks items for a user; the events of the request count at once",
                ok=listed,
                body={**asked, "examples": [{"user": "r00001", "k": 5}]},
                waits=True,
                limits=limits,
            )
        },
        f"/models/{name}/score": {
            "post": _operation(
                f"{name}_score",
                "Scores candidates from the features of the ranking network, to compare a service with its files",
                ok=_object(scores={"type": "array"}, version=_TEXT),
                body={**taken, "examples": [{"features": [[0.0] * len(FEATURES)]}]},
                waits=True,
                limits=limits,
            )
        },
    }


def _readiness() -> Schema:
    said = _object(ready={"type": "boolean"}, reasons={"type": "array", "items": _TEXT})
    operation = _operation("readyz", "Whether requests should come to this process", ok=said)
    operation["responses"]["503"] = _response("Not now: it loads its versions, or is stopping.", said)
    return operation


def _operation(
    name: str,
    summary: str,
    *,
    ok: Schema,
    body: Schema | None = None,
    waits: bool = False,
    limits: str = "",
    query: Schema | None = None,
) -> Schema:
    responses: Schema = {"200": _response("Done.", ok)}
    operation: Schema = {"operationId": name, "summary": summary, "responses": responses}
    if body is not None:
        operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": body}}}
        responses["413"] = _response(f"The request is too large: {limits}.", _ref("Error"))
        responses["415"] = _response("The body is not declared as JSON.", _ref("Error"))
        responses["422"] = _response("The rows cannot be scored; nothing was recorded.", _ref("Refused"))
        responses["500"] = _response("The version has no finite score for a row; nothing was recorded.", _ref("Error"))
    if query is not None:
        operation["parameters"] = [query]
        responses["500"] = _response(
            "The version has no finite score for a row, and nothing was recorded; or the explanation does not add up.",
            _ref("Error"),
        )
        responses["409"] = _response("This version cannot explain its scores; nothing was recorded.", _ref("Error"))
    if waits:
        unavailable = _response("No version serves yet, or the log cannot be written.", _ref("Error"))
        responses["503"] = {**unavailable, "headers": _RETRY_AFTER}
    return operation


def _column(parser: RequestParser, name: str) -> Schema:
    column, kind = parser.schema.columns[name], parser.kind(name)
    bounds, allowed = _bounds(column.checks), _allowed(column.checks)
    as_text = {"type": "string", "description": "The same value as text, as in a file."}
    forms: list[Schema]
    example: Any
    if allowed is not None:
        forms, example = [{"enum": allowed}], allowed[0]
    elif kind == "integer":
        limits = {"minimum": -MOST_DIGITS, "maximum": MOST_DIGITS} | bounds
        forms = [{"type": "integer", **limits}, {**as_text, "format": "whole-number"}]
        example = int(_within(bounds, 1))
    elif kind == "decimal":
        forms, example = [{"type": "number", **bounds}, {**as_text, "format": "decimal-number"}], _within(bounds, 12.5)
    elif kind == "moment":
        now = dt.datetime.now(dt.UTC)
        forms = [{"type": "string", "format": "date-time"}]
        example = f"{now:%Y-%m-%dT%H:%M:%SZ}"
    elif kind == "truth":
        forms, example = [{"type": "boolean"}, {"enum": ["true", "false"]}], True
    else:
        forms, example = [{"type": ["string", "number", "boolean"]}], "text"
    if column.nullable:
        forms.append({"type": "null"})
    schema = forms[0] if len(forms) == 1 else {"anyOf": forms}
    return {**schema, "description": parser.describe()[name], "examples": [example]}


def _bounds(checks: Sequence[Any]) -> Schema:
    bounds: Schema = {}
    names = {
        "greater_than": ("exclusiveMinimum", "min_value"),
        "greater_than_or_equal_to": ("minimum", "min_value"),
        "less_than": ("exclusiveMaximum", "max_value"),
        "less_than_or_equal_to": ("maximum", "max_value"),
    }
    for check in checks:
        if check.name in names:
            word, statistic = names[check.name]
            bounds[word] = check.statistics[statistic]
        elif check.name == "in_range":
            given = check.statistics
            bounds["minimum" if given["include_min"] else "exclusiveMinimum"] = given["min_value"]
            bounds["maximum" if given["include_max"] else "exclusiveMaximum"] = given["max_value"]
    return bounds


def _allowed(checks: Sequence[Any]) -> list[Any] | None:
    return next((sorted(check.statistics["allowed_values"]) for check in checks if check.name == "isin"), None)


def _within(bounds: Schema, value: float) -> float:
    low = max((bounds[word] for word in ("minimum", "exclusiveMinimum") if word in bounds), default=None)
    high = min((bounds[word] for word in ("maximum", "exclusiveMaximum") if word in bounds), default=None)
    if (low is None or low < value) and (high is None or value < high):
        return value
    if low is not None and high is not None:
        return float(low + high) / 2
    return float(low + 1) if low is not None else float((high or 0) - 1)


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties}


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


def _response(description: str, schema: Schema) -> Schema:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


_TEXT: Schema = {"type": "string"}
