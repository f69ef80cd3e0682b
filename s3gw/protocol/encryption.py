"""PURE. Server-side encryption as clients ask for it and are told of it: SSE-S3, SSE-KMS, SSE-C.

Source: Amazon S3 API Reference, PutObject, GetObject, CopyObject, UploadPart; User Guide, "Protecting data with
encryption". Everything is sealed anyway: SSE-S3 is what holds without a word. SSE-KMS names the key of the keyring to
seal under, `NAME`, `alias/NAME` or an ARN that ends in `key/NAME` or `alias/NAME`; without a name it is the bucket's
own. An object keeps what was asked for in `Attributes.sse`: `mode`, and with KMS `key` (the name as it was given) and
`bucket_key` (`true` when enabled); with SSE-C what cluster.customer_seals adds. A customer's key is kept nowhere.

AWS refuses SSE-C over plain http. Frostbyte does not know who ends TLS in front of it, and takes it.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import re
from collections.abc import Mapping
from typing import NamedTuple

import msgspec

from cluster.seal import Seal
from s3gw.protocol.bucket_encryption import SETTING, parse_stored_encryption
from s3gw.protocol.errors import S3Error
from storage.crypto.customer import CUSTOMER_KEY_BYTES, CustomerKey
from storage.crypto.keys import named_key_id
from storage.model import Attributes, Bucket

SSE_S3 = "AES256"
KMS_MODES = ("aws:kms", "aws:kms:dsse")
CUSTOMER = "customer"
BUCKETS_OWN_ALIAS = "alias/aws/s3"
CONTEXT_CHARACTERS_MAX = 8_192
KEY_NAME_CHARACTERS_MAX = 2_048

_HEADER = "x-amz-server-side-encryption"
_KMS_KEY = f"{_HEADER}-aws-kms-key-id"
CONTEXT = f"{_HEADER}-context"
_BUCKET_KEY = f"{_HEADER}-bucket-key-enabled"
_ASKING = frozenset({_HEADER, _KMS_KEY, CONTEXT, _BUCKET_KEY})
_ALGORITHM, _KEY, _KEY_MD5 = "customer-algorithm", "customer-key", "customer-key-md5"
_OF_THE_OBJECT = f"{_HEADER}-"
_OF_THE_SOURCE = "x-amz-copy-source-server-side-encryption-"
_ALL = _ASKING | {_OF_THE_OBJECT + name for name in (_ALGORITHM, _KEY, _KEY_MD5)}
_ARN = re.compile(r"arn:[a-z0-9-]+:kms:[a-z0-9-]*:[0-9a-zA-Z]*:(?:key/|alias/)(.+)\Z")

Lines = list[tuple[bytes, bytes]]
"""response headers"""

SSE_S3_LINES: Lines = [(_HEADER.encode(), SSE_S3.encode())]


class Encryption(NamedTuple):
    """How a body is to be sealed."""

    sse: dict[str, str] = {}
    """as `Attributes.sse`; not to be changed"""
    seal: Seal | None = None
    context: str = ""
    """of SSE-KMS, as it was given: checked and told again, and of no further meaning here"""

    def apply(self, attributes: Attributes) -> Attributes:
        """The attributes of what is sealed so, whatever was in them."""
        return attributes if attributes.sse == self.sse else msgspec.structs.replace(attributes, sse=self.sse)

    @property
    def lines(self) -> Lines:
        """What the answer to the write says of it."""
        return format_encryption(self.sse, self.seal, self.context)


PLAIN = Encryption()
"""the bucket's own key"""


def choose_encryption(headers: Mapping[str, str], bucket: Bucket) -> Encryption:
    """Of a new object or upload: as its headers (or form fields) ask, else by the bucket's default.

    InvalidArgument, InvalidEncryptionAlgorithmError, InvalidRequest, AccessDenied (SSE-C that the bucket blocks) and
    KMS.NotFoundException for what names no key; whether there is a key of that name, the store knows.
    """
    asked = not _ALL.isdisjoint(headers)
    stored = bucket.settings.get(SETTING) if bucket.settings else None
    if not asked and stored is None:
        return PLAIN
    default = parse_stored_encryption(stored)
    customer_key = parse_customer_key(headers) if asked else None
    mode = headers.get(_HEADER) or ""
    if customer_key is not None:
        _refuse_beside_customer_key(headers, mode)
        if default.blocks_customer_keys:
            raise S3Error("AccessDenied", "Server-side encryption with customer-provided keys is blocked here.")
        return Encryption({"mode": CUSTOMER}, Seal(customer_key=customer_key))
    _check_mode(headers, mode)
    enabled = headers.get(_BUCKET_KEY) or ""
    bucket_key = enabled.lower() == "true" if enabled else default.bucket_key_enabled
    if not mode:
        return _plan_kms(default.mode, default.key_name, bucket_key, bucket) if default.mode in KMS_MODES else PLAIN
    if mode == SSE_S3:
        return PLAIN
    context = headers.get(CONTEXT) or ""
    _check_context(context)
    return _plan_kms(mode, headers.get(_KMS_KEY) or "", bucket_key, bucket)._replace(context=context)


def recall_encryption(sse: dict[str, str], headers: Mapping[str, str], bucket: Bucket) -> Encryption:
    """Of a part: what its upload was created with, and the customer's key of this request.

    Headers of SSE-S3 and SSE-KMS say nothing here; clients that send them with every part are not refused.
    """
    customer_key = parse_customer_key(headers)
    if customer_key is not None:
        return Encryption(sse, Seal(customer_key=customer_key))
    if sse.get("mode") in KMS_MODES:
        return Encryption(sse, Seal(find_key_id(sse["key"], bucket)))
    return Encryption(sse)


def parse_read_key(headers: Mapping[str, str]) -> CustomerKey | None:
    """The customer's key of a GET or HEAD, where no other header of encryption has a place. InvalidArgument."""
    if _ALL.isdisjoint(headers):
        return None
    for name in (_HEADER, _KMS_KEY, CONTEXT, _BUCKET_KEY):
        if headers.get(name):
            raise _refuse(name, headers[name], f"{name} header is not supported for this operation.")
    return parse_customer_key(headers)


def parse_customer_key(headers: Mapping[str, str]) -> CustomerKey | None:
    """The three headers of SSE-C, all or none. InvalidArgument, InvalidEncryptionAlgorithmError."""
    return _parse_customer_key(headers, _OF_THE_OBJECT)


def parse_source_key(headers: Mapping[str, str]) -> CustomerKey | None:
    """The same of a copy's source."""
    return _parse_customer_key(headers, _OF_THE_SOURCE)


def find_key_id(key_name: str, bucket: Bucket) -> str:
    """The keyring's id of what a client calls a KMS key, `` for the bucket's own. KMS.NotFoundException."""
    if key_name in ("", BUCKETS_OWN_ALIAS, bucket.bucket_key_id):
        return ""
    arn = _ARN.match(key_name) if len(key_name) <= KEY_NAME_CHARACTERS_MAX else None
    name = arn[1] if arn else key_name.removeprefix("alias/")
    if arn and name == "aws/s3":
        return ""
    try:
        return named_key_id(name)
    except ValueError:
        raise S3Error("KMS.NotFoundException", f"Invalid keyId '{key_name[:64]}'") from None


def format_encryption(sse: Mapping[str, str], seal: Seal | None = None, context: str = "") -> Lines:
    """What answers say of an object, an upload or a part; not to be changed.

    seal, context: of the request; a customer's key is confirmed by its MD5.
    """
    if not sse:
        return SSE_S3_LINES
    mode = sse.get("mode", "")
    if mode == CUSTOMER:
        if seal is None or seal.customer_key is None:
            return []
        return [
            (f"{_OF_THE_OBJECT}{_ALGORITHM}".encode(), SSE_S3.encode()),
            (f"{_OF_THE_OBJECT}{_KEY_MD5}".encode(), seal.customer_key.md5_base64.encode()),
        ]
    lines = [(_HEADER.encode(), mode.encode()), (_KMS_KEY.encode(), sse.get("key", "").encode("latin-1", "replace"))]
    if sse.get("bucket_key"):
        lines.append((_BUCKET_KEY.encode(), b"true"))
    if context:
        lines.append((CONTEXT.encode(), context.encode("latin-1", "replace")))
    return lines


def _plan_kms(mode: str, key_name: str, bucket_key: bool, bucket: Bucket) -> Encryption:
    key_id = find_key_id(key_name, bucket)
    sse = {"mode": mode, "key": key_name or bucket.bucket_key_id}
    if bucket_key:
        sse["bucket_key"] = "true"
    return Encryption(sse, Seal(key_id))


def _check_mode(headers: Mapping[str, str], mode: str) -> None:
    """What does not go together."""
    if mode and mode != SSE_S3 and mode not in KMS_MODES:
        raise _refuse(_HEADER, mode, "The encryption method specified is not supported")
    if mode not in KMS_MODES:
        for name in (_KMS_KEY, CONTEXT):
            if headers.get(name):
                raise _refuse(
                    _HEADER,
                    mode,
                    f"Server Side Encryption with AWS KMS managed key requires HTTP header {_HEADER} : aws:kms",
                )


def _refuse_beside_customer_key(headers: Mapping[str, str], mode: str) -> None:
    if any(headers.get(name) for name in _ASKING):
        raise _refuse(
            _HEADER,
            mode,
            "Server Side Encryption with Customer provided key is incompatible with the encryption method specified",
        )


def _check_context(text: str) -> None:
    """Base64 of a JSON object of strings."""
    if not text:
        return
    try:
        if len(text) > CONTEXT_CHARACTERS_MAX:
            raise ValueError
        context = json.loads(base64.b64decode(text, validate=True))
        fits = isinstance(context, dict) and all(isinstance(value, str) for value in context.values())
    except (ValueError, RecursionError):
        fits = False
    if not fits:
        raise _refuse(CONTEXT, "", f"The header '{CONTEXT}' shall be Base64-encoded UTF-8 string holding JSON.")


def _parse_customer_key(headers: Mapping[str, str], prefix: str) -> CustomerKey | None:
    algorithm, key, key_md5 = (headers.get(prefix + name) or "" for name in (_ALGORITHM, _KEY, _KEY_MD5))
    if not (algorithm or key or key_md5):
        return None
    asking = "Requests specifying Server Side Encryption with Customer provided keys must provide"
    if not algorithm:
        raise _refuse(prefix + _ALGORITHM, "", f"{asking} a valid encryption algorithm.")
    if algorithm != SSE_S3:
        raise S3Error("InvalidEncryptionAlgorithmError", ArgumentName=prefix + _ALGORITHM, ArgumentValue=algorithm[:64])
    if not key:
        raise _refuse(prefix + _KEY, "", f"{asking} an appropriate secret key.")
    if not key_md5:
        raise _refuse(prefix + _KEY_MD5, "", f"{asking} the client calculated MD5 of the secret key.")
    customer_key = CustomerKey(_decode(key))
    if len(customer_key.secret) != CUSTOMER_KEY_BYTES:
        raise _refuse(prefix + _KEY, "", "The secret key was invalid for the specified algorithm.")
    if not hmac.compare_digest(customer_key.md5_base64.encode(), key_md5.encode()):
        raise _refuse(
            prefix + _KEY_MD5, "", "The calculated MD5 hash of the key did not match the hash that was provided."
        )
    return customer_key


def _decode(text: str) -> bytes:
    """Base64, nothing for anything else."""
    try:
        return base64.b64decode(text.strip(), validate=True)
    except (binascii.Error, ValueError):
        return b""


def _refuse(name: str, value: str, message: str) -> S3Error:
    """InvalidArgument. value: never a key."""
    return S3Error("InvalidArgument", message, ArgumentName=name, ArgumentValue=value[:64])
