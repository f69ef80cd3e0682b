"""`frostbyte doctor`: looks at the data directory and the running cluster, and says what to do, a line each."""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import sys
from collections.abc import Callable
from importlib import metadata as packages
from pathlib import Path

from cluster.registry.config import MasterConfig, load_internal_key
from s3gw.cli.checkup import (
    Finding,
    Level,
    check_data,
    check_gateway,
    check_journal,
    check_machine,
    check_masters,
    check_metadata,
    check_nodes,
)
from s3gw.cli.health import judge
from s3gw.cli.home import open_keyring, read_cluster_id
from s3gw.cli.journal import describe_journal, read_journal
from s3gw.cli.master import find_master, open_master
from s3gw.cli.options import ConfigOption, DataOption, JsonOption, MasterOption, find_config, run
from s3gw.cli.readiness import is_ready, trust_any_certificate
from s3gw.cli.report import evaluate_survival
from s3gw.cli.roles import GATEWAY_FILE
from s3gw.cli.screen import add_row, make_table, show
from s3gw.config import Config, format_endpoint, parse_listen
from s3gw.worker_config import load_worker_config
from storage.base.clock import SystemClock
from storage.base.errors import FrostbyteError, Unavailable
from storage.base.secret_variables import MASTER_KEY_VARIABLE
from storage.crypto.master_key import require_private
from storage.metadata.open import open_metadata
from storage.metadata.settings import SQLITE

METADATA_DEADLINE_S = 5.0


def doctor(
    as_json: JsonOption = False, data: DataOption = None, config: ConfigOption = None, master: MasterOption = None
) -> None:
    """Check keys, configuration, nodes, disks, clocks, space and whether writes would succeed; say what to do.

    Exit status 1 when something is bad.
    """
    found = check_machine(resource.getrlimit(resource.RLIMIT_NOFILE)[1], _find_version(), platform.python_version())
    if master is None:
        settings = find_config(data, config)
        found += [*check_home(settings), *_check_running(data, config)]
    else:
        found += run(_check_cluster(*find_master(None, None, master)))
    if as_json:
        print(json.dumps([it._asdict() for it in found], indent=2))
    else:
        _print(found)
    if any(it.level is Level.BAD for it in found):
        sys.exit(1)


def _check_running(data: Path | None, config: Path | None) -> list[Finding]:
    """What `frostbyte up` started last."""
    try:
        master, home = find_master(data, config, None)
    except (FrostbyteError, ValueError) as error:
        return [Finding(Level.BAD, "server", str(error), "start it: `frostbyte up`")]
    found = run(_check_cluster(master, home))
    file = home / "run" / GATEWAY_FILE if home is not None else None
    if file is not None and file.exists():
        gateway = load_worker_config(file)
        is_tls = bool(gateway.tls_cert)
        ready = is_ready(*parse_listen(gateway.listen), trust_any_certificate() if is_tls else None)
        found.append(check_gateway(format_endpoint(gateway.listen, is_tls=is_tls), run(ready)))
    return found


def check_home(config: Config) -> list[Finding]:
    """The keys of a data directory: there, private, and fitting each other. ConfigError when it is none."""
    home, cluster_id = config.home, read_cluster_id(config.home)
    from_environment = MASTER_KEY_VARIABLE in os.environ
    found = [
        _try("master key", f"it opens the keyring of {home}", lambda: _open_keyring(home, cluster_id)),
        _try("internal key", "it is there", lambda: load_internal_key(home / "internal.key") and None),
    ]
    secrets = ["internal.key", *(["master.key"] if not from_environment else [])]
    if (home / "credentials.json").exists():
        secrets.append("credentials.json")
    found += [_try("secrets", f"{name} is private", lambda it=name: require_private(home / it)) for name in secrets]  # type: ignore[misc]
    return found


def _open_keyring(home: Path, cluster_id: str) -> None:
    open_keyring(home, cluster_id, os.environ, make=False)


def _try(check: str, says: str, look: Callable[[], object]) -> Finding:
    try:
        look()
    except (FrostbyteError, ValueError, OSError) as error:
        return Finding(Level.BAD, check, str(error), "put back what belongs there, from your copy, with mode 0600")
    return Finding(Level.OK, check, says)


async def _check_cluster(config: MasterConfig, home: Path | None) -> list[Finding]:
    failure, loss_window = await _look_at_metadata(config)
    found = check_metadata(failure, loss_window, _free_bytes(config))
    records = describe_journal(config.metadata.engine, read_journal(config), SystemClock().now_ms())
    if not failure:
        found += check_journal(records)
    try:
        async with open_master(config, home) as master:
            cluster_map, survey, roles = (
                await master.fetch_map(),
                await master.fetch_survey(),
                await master.fetch_roles(),
            )
    except (FrostbyteError, ValueError) as error:
        return [*found, Finding(Level.BAD, "masters", str(error), "start it: `frostbyte up`, or the master alone")]
    writes_succeed = evaluate_survival(config.placed, cluster_map.nodes) is not None and records.takes_writes
    judgement = judge(survey, cluster_map.nodes, writes_succeed=writes_succeed, metadata_answers=not failure)
    return [*found, check_masters(roles), *check_nodes(cluster_map, config.placed), check_data(judgement)]


async def _look_at_metadata(config: MasterConfig) -> tuple[str, tuple[str, ...]]:
    """(why it does not answer, what an acknowledged write does not survive)"""
    try:
        metadata = await open_metadata(config.metadata, deadline_s=METADATA_DEADLINE_S)
    except Unavailable as error:
        return str(error), ()
    try:
        await metadata.configuration_sequence()
        return "", metadata.loss_window
    except Unavailable as error:
        return str(error), ()
    finally:
        await metadata.close()


def _free_bytes(config: MasterConfig) -> int | None:
    if config.metadata.engine != SQLITE or not Path(config.metadata.path).exists():
        return None
    return shutil.disk_usage(config.metadata.path).free


def _find_version() -> str:
    try:
        return packages.version("frostbyte")
    except packages.PackageNotFoundError:
        return "from its source tree"


def _print(found: list[Finding]) -> None:
    table = make_table("", "check", "found", "what to do")
    for it in found:
        add_row(table, it.level.value, it.check, it.says, it.advice or "-")
    show(table)
    bad = sum(it.level is Level.BAD for it in found)
    warned = sum(it.level is Level.WARNING for it in found)
    show(f"{bad} bad, {warned} to be warned of" if bad or warned else "nothing to be done")
