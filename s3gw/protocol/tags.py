"""PURE. Tags of objects and buckets: from the x-amz-tagging header, from a Tagging document, and back into one.

Source: Amazon S3 API Reference, PutObjectTagging and PutBucketTagging; User Guide, "Categorizing your storage using
tags": at most 10 of an object and 50 of a bucket, names unique and up to 128 characters, values up to 256.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from urllib.parse import parse_qsl

from s3gw.protocol.errors import S3Error
from s3gw.protocol.xml import Element, document, element, parse_xml

OBJECT_TAGS_MAX = 10
BUCKET_TAGS_MAX = 50
TAG_NAME_CHARACTERS_MAX = 128
TAG_VALUE_CHARACTERS_MAX = 256

_CHARACTERS = re.compile(r"[\w\s+\-=.:/@]*")
_RESERVED = "aws:"
_DOCUMENTS_REMEMBERED = 256


def parse_tags(header: str) -> dict[str, str]:
    """x-amz-tagging: `a=1&b=2`, url-encoded, at most 10 tags. InvalidTag, BadRequest."""
    if not header:
        return {}
    try:
        pairs = parse_qsl(header, keep_blank_values=True, errors="strict", max_num_fields=OBJECT_TAGS_MAX)
    except UnicodeDecodeError:
        raise S3Error("InvalidTag") from None
    except ValueError:
        raise S3Error("BadRequest", f"Object tags cannot be greater than {OBJECT_TAGS_MAX}") from None
    return _check_tags(pairs)


def parse_object_tagging(body: bytes) -> dict[str, str]:
    """A Tagging document of an object. MalformedXML, InvalidTag, also for more than 10 tags."""
    too_many = f"Object tags cannot be greater than {OBJECT_TAGS_MAX}"
    return _check_tags(_read_tag_set(body, "InvalidTag", too_many, OBJECT_TAGS_MAX))


def parse_bucket_tagging(body: bytes) -> dict[str, str]:
    """A Tagging document of a bucket. MalformedXML, InvalidTag; BadRequest for more than 50 tags."""
    too_many = f"Bucket tag count cannot be greater than {BUCKET_TAGS_MAX}"
    return _check_tags(_read_tag_set(body, "BadRequest", too_many, BUCKET_TAGS_MAX))


@lru_cache(maxsize=_DOCUMENTS_REMEMBERED)
def read_bucket_tags(stored: bytes) -> Mapping[str, str]:
    """The tags of a bucket's stored `tagging` setting, parsed once for each document; not to be changed."""
    return parse_bucket_tagging(stored)


def parse_tag_elements(elements: Sequence[Element]) -> dict[str, str]:
    """Tag elements within another document. MalformedXML, InvalidTag."""
    return _check_tags([_read_tag(tag) for tag in elements])


def format_tags(tags: Mapping[str, str]) -> bytes:
    """Tagging, ordered by name."""
    return document("Tagging", f"<TagSet>{format_tag_elements(tags)}</TagSet>")


def format_tag_elements(tags: Mapping[str, str]) -> str:
    """Tag elements, ordered by name."""
    return "".join(f"<Tag>{element('Key', name)}{element('Value', tags[name])}</Tag>" for name in sorted(tags))


def _read_tag_set(body: bytes, code: str, too_many: str, count_max: int) -> list[tuple[str, str]]:
    tag_set = parse_xml(body, "Tagging").child("TagSet")
    if tag_set is None:
        raise S3Error("MalformedXML")
    if len(tag_set.children) > count_max:
        raise S3Error(code, too_many)
    return [_read_tag(child) for child in tag_set.children]


def _read_tag(tag: Element) -> tuple[str, str]:
    name, text = tag.child_text("Key"), tag.child_text("Value")
    if tag.name != "Tag" or name is None or text is None:
        raise S3Error("MalformedXML")
    return name, text


def _check_tags(pairs: Sequence[tuple[str, str]]) -> dict[str, str]:
    tags = dict(pairs)
    if len(tags) != len(pairs):
        raise S3Error("InvalidTag", "Cannot provide multiple Tags with the same key")
    for name, text in pairs:
        if not 1 <= len(name) <= TAG_NAME_CHARACTERS_MAX or not _CHARACTERS.fullmatch(name):
            raise S3Error("InvalidTag", "The TagKey you have provided is invalid", TagKey=name)
        if len(text) > TAG_VALUE_CHARACTERS_MAX or not _CHARACTERS.fullmatch(text):
            raise S3Error("InvalidTag", "The TagValue you have provided is invalid", TagKey=name, TagValue=text)
        if name[: len(_RESERVED)].lower() == _RESERVED:
            raise S3Error("InvalidTag", "System tags cannot be added/updated by requester", TagKey=name)
    return tags
