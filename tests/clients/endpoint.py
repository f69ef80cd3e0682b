"""An S3 endpoint as a client is told of it: address, credentials and the CA to trust."""

from __future__ import annotations

import os
import ssl
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.config import Config

REGION = "us-east-1"
CLIENT_READ_TIMEOUT_S = 60
"""Longer than any single answer takes; a hang becomes a failure and not a stuck run."""


@dataclass(frozen=True)
class Endpoint:
    """What every client needs to talk to one server."""

    url: str
    access_key_id: str
    secret_access_key: str = field(repr=False)
    ca_file: Path | None = None

    @property
    def scheme(self) -> str:
        """`http` or `https`."""
        return urlsplit(self.url).scheme

    @property
    def host(self) -> str:
        """`host:port`, as it stands in a Host header."""
        return urlsplit(self.url).netloc

    def ssl_context(self) -> ssl.SSLContext | None:
        """What Python's own HTTP clients trust; None for plain http."""
        return ssl.create_default_context(cafile=str(self.ca_file)) if self.ca_file else None

    def environment(self) -> dict[str, str]:
        """The environment of a client process: the AWS variables, this CA, and nothing of the caller's own set-up."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RCLONE_"))}
        own = {
            "AWS_ACCESS_KEY_ID": self.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.secret_access_key,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REGION": REGION,
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": os.devnull,
            "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        }
        if self.ca_file is not None:
            trusted = str(self.ca_file)
            own |= {"AWS_CA_BUNDLE": trusted, "SSL_CERT_FILE": trusted, "CURL_CA_BUNDLE": trusted}
        return inherited | own

    def boto3_client(self, **options: Any) -> Any:
        """A boto3 S3 client with botocore's defaults; `options` go to botocore's Config."""
        options.setdefault("read_timeout", CLIENT_READ_TIMEOUT_S)
        session = boto3.session.Session(
            aws_access_key_id=self.access_key_id, aws_secret_access_key=self.secret_access_key, region_name=REGION
        )
        return session.client(
            "s3",
            endpoint_url=self.url,
            verify=str(self.ca_file) if self.ca_file else None,
            config=Config(**options),
        )
