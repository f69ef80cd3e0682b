"""Which handler serves which operation. One answers with a whole Response, or sends it itself and answers None."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from s3gw.call import Call, Response
from s3gw.handlers.bucket import create_bucket, delete_bucket, head_bucket
from s3gw.handlers.bucket_acl import get_bucket_acl, put_bucket_acl
from s3gw.handlers.bucket_documents import (
    delete_bucket_document,
    delete_nothing,
    get_bucket_document,
    put_bucket_document,
)
from s3gw.handlers.bucket_lifecycle import delete_bucket_lifecycle, get_bucket_lifecycle, put_bucket_lifecycle
from s3gw.handlers.bucket_ownership import (
    delete_ownership_controls,
    delete_public_access_block,
    get_ownership_controls,
    get_public_access_block,
    put_ownership_controls,
    put_public_access_block,
)
from s3gw.handlers.bucket_policy import (
    delete_bucket_policy,
    get_bucket_policy,
    get_bucket_policy_status,
    put_bucket_policy,
)
from s3gw.handlers.bucket_settings import get_bucket_setting
from s3gw.handlers.listing import list_objects, list_objects_v2
from s3gw.handlers.multipart import abort_multipart_upload, create_multipart_upload, upload_part, upload_part_copy
from s3gw.handlers.multipart_complete import complete_multipart_upload
from s3gw.handlers.multipart_list import list_multipart_uploads, list_parts
from s3gw.handlers.object_acl import get_object_acl, put_object_acl
from s3gw.handlers.object_attributes import get_object_attributes, get_object_torrent
from s3gw.handlers.object_copy import copy_object
from s3gw.handlers.object_delete import delete_object, delete_objects
from s3gw.handlers.object_lock import (
    get_object_legal_hold,
    get_object_lock_configuration,
    get_object_retention,
    put_object_legal_hold,
    put_object_lock_configuration,
    put_object_retention,
)
from s3gw.handlers.object_read import get_object, head_object
from s3gw.handlers.object_tagging import delete_object_tagging, get_object_tagging, put_object_tagging
from s3gw.handlers.object_write import put_object
from s3gw.handlers.post_object import post_object
from s3gw.handlers.preflight import preflight
from s3gw.handlers.service import list_buckets
from s3gw.handlers.versioning import get_bucket_versioning, list_object_versions, put_bucket_versioning
from s3gw.protocol.operations import Operation

Handler = Callable[[Call], Awaitable[Response | None]]

HANDLERS: dict[Operation, Handler] = {
    Operation.LIST_BUCKETS: list_buckets,
    Operation.CREATE_BUCKET: create_bucket,
    Operation.HEAD_BUCKET: head_bucket,
    Operation.DELETE_BUCKET: delete_bucket,
    Operation.GET_BUCKET_SETTING: get_bucket_setting,
    Operation.DELETE_BUCKET_SETTING: delete_nothing,
    Operation.GET_BUCKET_TAGGING: get_bucket_document,
    Operation.PUT_BUCKET_TAGGING: put_bucket_document,
    Operation.DELETE_BUCKET_TAGGING: delete_bucket_document,
    Operation.GET_BUCKET_CORS: get_bucket_document,
    Operation.PUT_BUCKET_CORS: put_bucket_document,
    Operation.DELETE_BUCKET_CORS: delete_bucket_document,
    Operation.GET_BUCKET_LIFECYCLE_CONFIGURATION: get_bucket_lifecycle,
    Operation.PUT_BUCKET_LIFECYCLE_CONFIGURATION: put_bucket_lifecycle,
    Operation.DELETE_BUCKET_LIFECYCLE: delete_bucket_lifecycle,
    Operation.GET_BUCKET_REQUEST_PAYMENT: get_bucket_document,
    Operation.PUT_BUCKET_REQUEST_PAYMENT: put_bucket_document,
    Operation.GET_BUCKET_ACCELERATE_CONFIGURATION: get_bucket_document,
    Operation.PUT_BUCKET_ACCELERATE_CONFIGURATION: put_bucket_document,
    Operation.GET_BUCKET_ACL: get_bucket_acl,
    Operation.PUT_BUCKET_ACL: put_bucket_acl,
    Operation.GET_BUCKET_POLICY: get_bucket_policy,
    Operation.PUT_BUCKET_POLICY: put_bucket_policy,
    Operation.DELETE_BUCKET_POLICY: delete_bucket_policy,
    Operation.GET_BUCKET_POLICY_STATUS: get_bucket_policy_status,
    Operation.GET_BUCKET_OWNERSHIP_CONTROLS: get_ownership_controls,
    Operation.PUT_BUCKET_OWNERSHIP_CONTROLS: put_ownership_controls,
    Operation.DELETE_BUCKET_OWNERSHIP_CONTROLS: delete_ownership_controls,
    Operation.GET_PUBLIC_ACCESS_BLOCK: get_public_access_block,
    Operation.PUT_PUBLIC_ACCESS_BLOCK: put_public_access_block,
    Operation.DELETE_PUBLIC_ACCESS_BLOCK: delete_public_access_block,
    Operation.GET_BUCKET_ENCRYPTION: get_bucket_document,
    Operation.PUT_BUCKET_ENCRYPTION: put_bucket_document,
    Operation.DELETE_BUCKET_ENCRYPTION: delete_bucket_document,
    Operation.LIST_OBJECTS: list_objects,
    Operation.LIST_OBJECTS_V2: list_objects_v2,
    Operation.LIST_OBJECT_VERSIONS: list_object_versions,
    Operation.GET_BUCKET_VERSIONING: get_bucket_versioning,
    Operation.PUT_BUCKET_VERSIONING: put_bucket_versioning,
    Operation.GET_OBJECT_LOCK_CONFIGURATION: get_object_lock_configuration,
    Operation.PUT_OBJECT_LOCK_CONFIGURATION: put_object_lock_configuration,
    Operation.GET_OBJECT_RETENTION: get_object_retention,
    Operation.PUT_OBJECT_RETENTION: put_object_retention,
    Operation.GET_OBJECT_LEGAL_HOLD: get_object_legal_hold,
    Operation.PUT_OBJECT_LEGAL_HOLD: put_object_legal_hold,
    Operation.LIST_MULTIPART_UPLOADS: list_multipart_uploads,
    Operation.DELETE_OBJECTS: delete_objects,
    Operation.GET_OBJECT: get_object,
    Operation.HEAD_OBJECT: head_object,
    Operation.PUT_OBJECT: put_object,
    Operation.COPY_OBJECT: copy_object,
    Operation.DELETE_OBJECT: delete_object,
    Operation.GET_OBJECT_ACL: get_object_acl,
    Operation.PUT_OBJECT_ACL: put_object_acl,
    Operation.GET_OBJECT_TAGGING: get_object_tagging,
    Operation.PUT_OBJECT_TAGGING: put_object_tagging,
    Operation.DELETE_OBJECT_TAGGING: delete_object_tagging,
    Operation.CREATE_MULTIPART_UPLOAD: create_multipart_upload,
    Operation.UPLOAD_PART: upload_part,
    Operation.UPLOAD_PART_COPY: upload_part_copy,
    Operation.COMPLETE_MULTIPART_UPLOAD: complete_multipart_upload,
    Operation.ABORT_MULTIPART_UPLOAD: abort_multipart_upload,
    Operation.LIST_PARTS: list_parts,
    Operation.POST_OBJECT: post_object,
    Operation.GET_OBJECT_ATTRIBUTES: get_object_attributes,
    Operation.GET_OBJECT_TORRENT: get_object_torrent,
    Operation.PREFLIGHT: preflight,
}
