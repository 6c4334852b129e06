"""Reads the channels from ``channels.toml``, which has one table per channel.

Belongs here: reading and validating that file. Does not belong here: the channels (``channels``).

The file never contains secrets: ``webhook_url = { env = "SLACK_WEBHOOK_URL" }`` names the environment variable.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import dagster as dg
from pydantic import ValidationError

from resources.alerts.channels import KINDS, Channel
from resources.alerts.channels.base import quiet_times


class ChannelsError(Exception):
    """The channels file is invalid. The message gives the file, the channel, the field and the fix."""


def read_channels(path: Path) -> dict[str, Channel]:
    """Reads the channels, by name; secrets are :class:`dagster.EnvVar`. Raises :class:`ChannelsError` if invalid."""
    try:
        tables = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ChannelsError(
            f"{path}: no such file; set ASSETLINE_CHANNELS to the path of your channels file"
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise ChannelsError(f"{path}: {error}") from error
    return {name: _channel(path, name, table) for name, table in tables.items()}


def with_secrets(channel: Channel, name: str = "") -> Channel:
    """The channel with its secrets from the environment. Raises :class:`ChannelsError` if a variable is not set."""
    secrets = {field: value for field, value in dict(channel).items() if isinstance(value, dg.EnvVar)}
    if absent := [value.env_var_name for value in secrets.values() if not os.environ.get(value.env_var_name)]:
        raise ChannelsError(f"channel {name}: set the environment variable {', '.join(absent)}, or remove the channel")
    return channel.process_config_and_initialize()


def _channel(path: Path, name: str, table: Any) -> Channel:
    where = f"{path}: [{name}]"
    if not isinstance(table, dict) or table.get("kind") not in KINDS:
        raise ChannelsError(f"{where}: `kind` must be one of {', '.join(KINDS)}")
    if not name.isidentifier():
        raise ChannelsError(f"{where}: a name may contain only letters, digits and _")
    kind = KINDS[table["kind"]]
    given: dict[str, Any] = {}
    for field, value in table.items():
        if field == "kind":
            continue
        if field not in kind.model_fields:
            known = ", ".join(sorted(kind.model_fields))
            raise ChannelsError(f"{where}: {field} is not a field of {table['kind']}; its fields are {known}")
        from_env = isinstance(value, dict) and set(value) == {"env"}
        if field in kind.SECRETS and not from_env:
            variable = f"{name}_{field}".upper()
            raise ChannelsError(f'{where}: {field} is a secret; write {field} = {{ env = "{variable}" }}')
        given[field] = dg.EnvVar(value["env"]) if from_env else value
    if absent := [f for f, known in kind.model_fields.items() if known.is_required() and f not in given]:
        raise ChannelsError(f"{where}: {table['kind']} needs {', '.join(absent)}")
    try:
        channel = kind(**given)
        quiet_times(channel.quiet_hours or "22:00-07:00")
        ZoneInfo(channel.timezone)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise ChannelsError(f"{where}: {problems}") from error
    except (ValueError, ZoneInfoNotFoundError) as error:
        raise ChannelsError(f"{where}: {error}") from error
    if wrong := set(channel.severities) - {"warn", "page"}:
        raise ChannelsError(f"{where}: severities={sorted(wrong)}: use 'warn' and 'page'")
    if channel.heartbeat_minutes and kind.heartbeat is Channel.heartbeat:
        raise ChannelsError(f"{where}: {table['kind']} has no heartbeat; remove heartbeat_minutes")
    return channel
