"""PURE. The closed list of what a request can turn out to be, named as AWS names it."""

from __future__ import annotations

import enum


class Operation(enum.Enum):
    """One typed operation; every request is routed to exactly one."""

    LIST_BUCKETS = "ListBuckets"
    CREATE_BUCKET = "CreateBucket"
    HEAD_BUCKET = "HeadBucket"
    DELETE_BUCKET = "DeleteBucket"
    GET_BUCKET_SETTING = "GetBucketSetting"
    """any sub-resource of a bucket that is read as 'not configured' or in its fixed state"""
    LIST_OBJECTS = "ListObjects"
    LIST_OBJECTS_V2 = "ListObjectsV2"
    LIST_OBJECT_VERSIONS = "ListObjectVersions"
    GET_BUCKET_VERSIONING = "GetBucketVersioning"
    PUT_BUCKET_VERSIONING = "PutBucketVersioning"
    LIST_MULTIPART_UPLOADS = "ListMultipartUploads"
    DELETE_OBJECTS = "DeleteObjects"
    GET_OBJECT = "GetObject"
    HEAD_OBJECT = "HeadObject"
    PUT_OBJECT = "PutObject"
    COPY_OBJECT = "CopyObject"
    DELETE_OBJECT = "DeleteObject"
    GET_OBJECT_SETTING = "GetObjectSetting"
    """any sub-resource of an object that can be read"""
    CREATE_MULTIPART_UPLOAD = "CreateMultipartUpload"
    UPLOAD_PART = "UploadPart"
    UPLOAD_PART_COPY = "UploadPartCopy"
    COMPLETE_MULTIPART_UPLOAD = "CompleteMultipartUpload"
    ABORT_MULTIPART_UPLOAD = "AbortMultipartUpload"
    LIST_PARTS = "ListParts"
    POST_OBJECT = "PostObject"
    """a browser's form: what it is signed with stands in the form, so its handler authenticates and authorizes"""
    PREFLIGHT = "Preflight"
    """OPTIONS: never signed"""
    NOT_IMPLEMENTED = "NotImplemented"
    """on the closed list, and not offered"""
    METHOD_NOT_ALLOWED = "MethodNotAllowed"
    """AWS has no such operation either"""
