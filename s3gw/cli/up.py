"""`frostbyte up`: prepare the data directory, start every process in stages, say how to use it, stop in order."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Callable, Mapping
from typing import NoReturn

from s3gw.cli.handover import Plan, hand_over
from s3gw.cli.home import Home, Origin, prepare_home
from s3gw.cli.listener import make_readiness, open_listener, require_tls_files
from s3gw.cli.offline import put_root_user
from s3gw.cli.roles import open_forks, plan_stages, store_role_files
from s3gw.config import Config
from storage.base.log import configure_logging
from storage.base.secret_variables import MASTER_KEY_VARIABLE, SECRET_KEY_VARIABLE


def run_up(config: Config, environment: Mapping[str, str]) -> NoReturn:
    """Until SIGTERM or SIGINT, most of it as another program (handover.py). FrostbyteError, ValueError or OSError, in
    one line, for what keeps it from that.

    The port comes first: credentials are made, and shown, by a start that can succeed.
    """
    configure_logging("up")
    signal.signal(signal.SIGTERM, _stop_before_start)
    require_tls_files(config.tls_cert, config.tls_key)
    require_tls_files(config.internal.tls_cert, config.internal.tls_key)
    with open_listener(config.listen) as listener, open_forks() as forks:
        home = prepare_home(config, environment)
        with home.lock:
            loss_window = put_root_user(home)
            lines = (*describe_start(home, environment), *describe_metadata(home, loss_window))
            is_tls = bool(config.tls_cert)
            stages = plan_stages(home, listener.fileno(), make_readiness(listener, is_tls=is_tls))
            plan = Plan("up", stages, config.drain_timeout_s, lines, forks.server if forks else None)
            hand_over(plan, (home.lock.fileno(),), asks_tls=is_tls)


def run_init(config: Config, environment: Mapping[str, str], cluster_id: str, say: Callable[[str], None]) -> None:
    """Everything that a first start makes, and each role's config.json, without starting anything. Errors as run_up."""
    home = prepare_home(config, environment, cluster_id)
    with home.lock:
        loss_window = put_root_user(home)
        files = store_role_files(home)
    say(f"{config.home} is prepared for cluster {home.cluster_id}")
    for line in (*describe_credentials(home), *describe_metadata(home, loss_window)):
        say(line)
    for file in files:
        say(f"  {file}")


def _stop_before_start(number: int, frame: object) -> NoReturn:
    """SIGTERM while nothing runs yet: whatever was being made is whole or absent."""
    sys.exit(0)


def describe_credentials(home: Home) -> list[str]:
    """The secret is shown at the start that made it, and never again."""
    file = home.config.home / "credentials.json"
    shown, origin = {
        Origin.MADE: (home.credentials.secret_access_key, f"made now and kept in {file}"),
        Origin.FILE: ("…", f"in {file}"),
        Origin.ENVIRONMENT: (f"${SECRET_KEY_VARIABLE}", "from the environment"),
    }[home.credentials_origin]
    return [
        f"  access key id      {home.credentials.access_key_id}",
        f"  secret access key  {shown}   ({origin})",
    ]


def describe_start(home: Home, environment: Mapping[str, str]) -> list[str]:
    """What a person needs first."""
    config = home.config
    insecure = " --no-verify-ssl" if config.tls_cert else ""
    lines = [
        f"Frostbyte is ready at {config.endpoint}",
        *describe_credentials(home),
        f"  try it:  AWS_ACCESS_KEY_ID={home.credentials.access_key_id} AWS_SECRET_ACCESS_KEY={_secret_for_shell(home)}"
        f" AWS_DEFAULT_REGION={config.region} aws --endpoint-url {config.endpoint}{insecure} s3 mb s3://my-bucket",
        f"  {len(home.datanodes)} datanodes, {config.placed}, {config.worker_count} workers, "
        f"durability {config.durability}; everything is in {', '.join(config.data)}",
    ]
    if not environment.get(MASTER_KEY_VARIABLE):
        lines.append(f"  keep a copy of {config.home / 'master.key'} elsewhere: without it nothing can be read")
    if config.durability == "none":
        lines.append("  durability none: what was acknowledged last does not survive a power cut")
    return lines


def describe_metadata(home: Home, loss_window: tuple[str, ...]) -> list[str]:
    """Which engine holds the records, and what an acknowledged write does not survive there."""
    return [f"  metadata in {home.records.engine}", *(f"  metadata: {sentence}" for sentence in loss_window)]


def _secret_for_shell(home: Home) -> str:
    """An expression that can be pasted into a shell, without showing a secret that was shown before."""
    if home.credentials_origin is Origin.MADE:
        return home.credentials.secret_access_key
    if home.credentials_origin is Origin.ENVIRONMENT:
        return f"${SECRET_KEY_VARIABLE}"
    file = shlex.quote(str(home.config.home / "credentials.json"))
    return f'$(sed -n \'s/.*"secret_access_key": "\\(.*\\)".*/\\1/p\' {file})'
