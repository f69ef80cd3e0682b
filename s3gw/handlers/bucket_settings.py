"""Reading a bucket's sub-resources: what an untouched bucket answers on AWS, each in one row.

Terraform, Ansible and the audit tools read every one of them. Source: Amazon S3 API Reference, GetBucket… actions.
"""

from __future__ import annotations

from s3gw.call import Call, Response, xml_response
from s3gw.protocol.errors import S3Error

_REGION_WITHOUT_CONSTRAINT = "us-east-1"

_NOT_CONFIGURED = {
    "website": "NoSuchWebsiteConfiguration",
    "replication": "ReplicationConfigurationNotFoundError",
}
"""sub-resource → the error that says so"""

_FIXED = {
    "logging": ("BucketLoggingStatus", ""),
    "notification": ("NotificationConfiguration", ""),
    "abac": ("AbacStatus", "<Status>Disabled</Status>"),
}
"""sub-resource → the document that says so"""

_COLLECTIONS = {
    "analytics": "ListBucketAnalyticsConfigurationResult",
    "inventory": "ListInventoryConfigurationsResult",
    "metrics": "ListMetricsConfigurationsResult",
    "intelligent-tiering": "ListBucketIntelligentTieringConfigurationsOutput",
}
"""sub-resource → the document of an empty list; with an `id` there is nothing to find"""


async def get_bucket_setting(call: Call) -> Response:
    """One sub-resource in its present state."""
    name, bucket = call.route.subresource, call.bucket
    if name in _NOT_CONFIGURED:
        raise S3Error(_NOT_CONFIGURED[name], BucketName=bucket.name)
    if name in _FIXED:
        return xml_response(*_FIXED[name])
    if name in _COLLECTIONS:
        if "id" in call.query:
            raise S3Error("NoSuchConfiguration", BucketName=bucket.name)
        return xml_response(_COLLECTIONS[name], "<IsTruncated>false</IsTruncated>")
    assert name == "location", name
    region = "" if bucket.region == _REGION_WITHOUT_CONSTRAINT else bucket.region
    return xml_response("LocationConstraint", region)
