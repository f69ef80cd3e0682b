"""PURE. The S3 error catalogue: every code with its HTTP status and the sentence AWS gives for it.

Source: Amazon S3 API Reference, "Error responses". Any layer of s3gw may raise S3Error; respond.py alone turns it into
bytes. An unknown code is a mistake in the program, not in the request, so it raises KeyError where it is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, Self


class CatalogueEntry(NamedTuple):
    """What AWS answers for one code."""

    status: int
    message: str


class S3Error(Exception):
    """A refusal in S3's words.

    extra: further elements of the error document by their XML names (`BucketName="b"`). headers: response headers that
    belong to the refusal, lower-case names.
    """

    def __init__(self, code: str, message: str | None = None, **extra: str) -> None:
        entry = CATALOGUE[code]
        self.code = code
        self.status = entry.status
        self.message = entry.message if message is None else message
        self.extra = extra
        self.headers: dict[str, str] = {}
        super().__init__(f"{code}: {self.message}")

    def with_headers(self, headers: Mapping[str, str]) -> Self:
        """The same error with response headers added."""
        self.headers.update(headers)
        return self


CATALOGUE: dict[str, CatalogueEntry] = {
    code: CatalogueEntry(status, message)
    for code, status, message in (
        ("AccessControlListNotSupported", 400, "The bucket does not allow ACLs"),
        ("AccessDenied", 403, "Access Denied"),
        ("AccessForbidden", 403, "CORSResponse: CORS is not enabled for this bucket."),
        ("AccountProblem", 403, "There is a problem with your account that prevents the operation from completing."),
        ("AuthorizationHeaderMalformed", 400, "The authorization header you provided is invalid."),
        ("AuthorizationQueryParametersError", 400, "The authorization query parameters that you provided are not "
         "valid."),
        ("BadDigest", 400, "The Content-MD5 or checksum value that you specified did not match what the server "
         "received."),
        ("BadRequest", 400, "Bad Request"),
        ("BucketAlreadyExists", 409, "The requested bucket name is not available. The bucket namespace is shared by "
         "all users of the system. Please select a different name and try again."),
        ("BucketAlreadyOwnedByYou", 409, "Your previous request to create the named bucket succeeded and you already "
         "own it."),
        ("BucketNotEmpty", 409, "The bucket you tried to delete is not empty."),
        ("ConditionalRequestConflict", 409, "The conditional request cannot succeed due to a conflicting operation "
         "against this resource."),
        ("ContentSHA256Mismatch", 400, "The provided 'x-amz-content-sha256' header does not match what was computed."),
        ("CredentialsNotSupported", 400, "This request does not support credentials."),
        ("CrossLocationLoggingProhibited", 403, "Cross-location logging is not allowed."),
        ("EntityTooLarge", 400, "Your proposed upload exceeds the maximum allowed size"),
        ("EntityTooSmall", 400, "Your proposed upload is smaller than the minimum allowed size"),
        ("ExpiredToken", 400, "The provided token has expired."),
        ("IllegalLocationConstraintException", 400, "The specified location constraint is incompatible with the region "
         "this request was sent to."),
        ("IllegalVersioningConfigurationException", 400, "The versioning configuration specified in the request is "
         "invalid."),
        ("IncompleteBody", 400, "You did not provide the number of bytes specified by the Content-Length HTTP header."),
        ("IncorrectNumberOfFilesInPostRequest", 400, "POST requires exactly one file upload per request."),
        ("InlineDataTooLarge", 400, "Inline data exceeds the maximum allowed size."),
        ("InternalError", 500, "We encountered an internal error. Please try again."),
        ("InvalidAccessKeyId", 403, "The AWS Access Key Id you provided does not exist in our records."),
        ("InvalidAddressingHeader", 400, "You must specify the Anonymous role."),
        ("InvalidArgument", 400, "Invalid Argument"),
        ("InvalidBucketAclWithObjectOwnership", 400, "Bucket cannot have ACLs set with ObjectOwnership's "
         "BucketOwnerEnforced setting"),
        ("InvalidBucketName", 400, "The specified bucket is not valid."),
        ("InvalidBucketOwnerAWSAccountID", 400, "The value of the expected bucket owner parameter must be an AWS "
         "account "
         "ID"),
        ("InvalidBucketState", 409, "The request is not valid for the current state of the bucket."),
        ("InvalidDigest", 400, "The Content-MD5 or checksum value that you specified is not valid."),
        ("InvalidEncryptionAlgorithmError", 400, "The encryption request you specified is not valid. Supported value: "
         "AES256."),
        ("InvalidLocationConstraint", 400, "The specified location-constraint is not valid"),
        ("InvalidObjectState", 403, "The operation is not valid for the object's storage class"),
        ("InvalidPart", 400, "One or more of the specified parts could not be found.  The part may not have been "
         "uploaded, or the specified entity tag may not match the part's entity tag."),
        ("InvalidPartNumber", 416, "The requested partnumber is not satisfiable"),
        ("InvalidPartOrder", 400, "The list of parts was not in ascending order. Parts must be ordered by part "
         "number."),
        ("InvalidPayer", 403, "All access to this object has been disabled."),
        ("InvalidPolicyDocument", 400, "The content of the form does not meet the conditions specified in the policy "
         "document."),
        ("InvalidRange", 416, "The requested range is not satisfiable"),
        ("InvalidRequest", 400, "Invalid Request"),
        ("InvalidRetentionPeriod", 400, "Default retention period must be a positive integer value."),
        ("InvalidSecurity", 403, "The provided security credentials are not valid."),
        ("InvalidSOAPRequest", 400, "The SOAP request body is invalid."),
        ("InvalidStorageClass", 400, "The storage class you specified is not valid"),
        ("InvalidTag", 400, "The tag provided was not a valid tag. This error can occur if the tag did not pass input "
         "validation."),
        ("InvalidTargetBucketForLogging", 400, "The target bucket for logging does not exist"),
        ("InvalidToken", 400, "The provided token is malformed or otherwise invalid."),
        ("InvalidURI", 400, "Couldn't parse the specified URI."),
        ("KeyTooLongError", 400, "Your key is too long"),
        ("KMS.DisabledException", 400, "The request was rejected because the specified KMS key isn't enabled."),
        ("KMS.NotFoundException", 400, "The KMS key was not found."),
        ("MalformedACLError", 400, "The XML you provided was not well-formed or did not validate against our published "
         "schema"),
        ("MalformedPolicy", 400, "Policies must be valid JSON and the first byte must be '{'"),
        ("MalformedPOSTRequest", 400, "The body of your POST request is not well-formed multipart/form-data."),
        ("MalformedXML", 400, "The XML you provided was not well-formed or did not validate against our published "
         "schema"),
        ("MalformedTrailerError", 400, "The request contained trailing data that was not well-formed or did not "
         "conform to our published schema."),
        ("MaxMessageLengthExceeded", 400, "Your request was too big."),
        ("MaxPostPreDataLengthExceeded", 400, "Your POST request fields preceding the upload file were too large."),
        ("MetadataTooLarge", 400, "Your metadata headers exceed the maximum allowed metadata size"),
        ("MethodNotAllowed", 405, "The specified method is not allowed against this resource."),
        ("MissingAttachment", 400, "A SOAP attachment was expected, but none was found."),
        ("MissingAuthenticationToken", 403, "Missing Authentication Token"),
        ("MissingContentLength", 411, "You must provide the Content-Length HTTP header."),
        ("MissingRequestBodyError", 400, "Request Body is empty"),
        ("MissingSecurityHeader", 400, "Your request was missing a required header"),
        ("NoLoggingStatusForKey", 400, "There is no such thing as a logging status subresource for a key."),
        ("NoSuchAccessPoint", 404, "The specified accesspoint does not exist"),
        ("NoSuchBucket", 404, "The specified bucket does not exist"),
        ("NoSuchBucketPolicy", 404, "The bucket policy does not exist"),
        ("NoSuchConfiguration", 404, "The specified configuration does not exist."),
        ("NoSuchCORSConfiguration", 404, "The CORS configuration does not exist"),
        ("NoSuchKey", 404, "The specified key does not exist."),
        ("NoSuchLifecycleConfiguration", 404, "The lifecycle configuration does not exist"),
        ("NoSuchObjectLockConfiguration", 404, "The specified object does not have a ObjectLock configuration"),
        ("NoSuchPublicAccessBlockConfiguration", 404, "The public access block configuration was not found"),
        ("NoSuchTagSet", 404, "The TagSet does not exist"),
        ("NoSuchUpload", 404, "The specified upload does not exist. The upload ID may be invalid, or the upload may "
         "have "
         "been aborted or completed."),
        ("NoSuchVersion", 404, "The specified version does not exist."),
        ("NoSuchWebsiteConfiguration", 404, "The specified bucket does not have a website configuration"),
        ("NotDeviceOwnerError", 400, "The device that generated the token is not owned by the authenticated user."),
        ("NotImplemented", 501, "A header you provided implies functionality that is not implemented"),
        ("NotModified", 304, "Not Modified"),
        ("NotSignedUp", 403, "Your account is not signed up for the service."),
        ("ObjectLockConfigurationNotFoundError", 404, "Object Lock configuration does not exist for this bucket"),
        ("OperationAborted", 409, "A conflicting conditional operation is currently in progress against this resource. "
         "Please try again."),
        ("OwnershipControlsNotFoundError", 404, "The bucket ownership controls were not found"),
        ("PermanentRedirect", 301, "The bucket you are attempting to access must be addressed using the specified "
         "endpoint. Please send all future requests to this endpoint."),
        ("PreconditionFailed", 412, "At least one of the pre-conditions you specified did not hold"),
        ("Redirect", 307, "Temporary redirect."),
        ("ReplicationConfigurationNotFoundError", 404, "The replication configuration was not found"),
        ("RequestExpired", 400, "Request has expired"),
        ("RequestHeaderSectionTooLarge", 400, "Your request header section exceeds the maximum allowed size."),
        ("RequestIsNotMultiPartContent", 400, "Bucket POST must be of the enclosure-type multipart/form-data."),
        ("RequestTimeout", 400, "Your socket connection to the server was not read from or written to within the "
         "timeout "
         "period. Idle connections will be closed."),
        ("RequestTimeTooSkewed", 403, "The difference between the request time and the current time is too large."),
        ("RequestTorrentOfBucketError", 400, "Requesting the torrent file of a bucket is not permitted."),
        ("RestoreAlreadyInProgress", 409, "Object restore is already in progress"),
        ("ServerSideEncryptionConfigurationNotFoundError", 404, "The server side encryption configuration was not "
         "found"),
        ("ServiceUnavailable", 503, "Service is unable to handle request."),
        ("SignatureDoesNotMatch", 403, "The request signature we calculated does not match the signature you provided. "
         "Check your key and signing method."),
        ("SlowDown", 503, "Please reduce your request rate."),
        ("TemporaryRedirect", 307, "You are being redirected to the bucket while the DNS server is being updated."),
        ("TokenCodeInvalidError", 400, "The serial number and/or token code you provided is not valid."),
        ("TokenRefreshRequired", 400, "The provided token must be refreshed."),
        ("TooManyBuckets", 400, "You have attempted to create more buckets than allowed"),
        ("TooManyParts", 400, "You have attempted to upload more parts than allowed"),
        ("UnauthorizedAccess", 403, "You are not authorized to perform this operation"),
        ("UnexpectedContent", 400, "This request does not support content"),
        ("UnresolvableGrantByEmailAddress", 400, "The email address you provided does not match any account on "
         "record."),
        ("UnsupportedArgument", 400, "The request contained an unsupported argument."),
        ("UnsupportedSignature", 400, "The provided request is signed with an unsupported STS Token version or the "
         "signature version is not supported."),
        ("UserKeyMustBeSpecified", 400, "The bucket POST must contain the specified field name. If it is specified, "
         "check the order of the fields."),
        ("XAmzContentSHA256Mismatch", 400, "The provided 'x-amz-content-sha256' header does not match what was "
         "computed."),
        ("XAmzContentChecksumMismatch", 400, "The provided 'x-amz-checksum' header does not match what was computed."),
    )
}  # fmt: skip
"""code → (status, default message)"""
