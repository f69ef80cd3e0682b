"""PostObject: an upload from a browser's form. Source: Amazon S3 API Reference, POST Object.

The form's head says who sent it and what for; only then is it authenticated and authorized, and only then is the file
read. What it asks for goes the way of a PUT.
"""

from __future__ import annotations

from collections.abc import Mapping

from cluster.objectstore import PutResult
from s3gw.access import find_credential
from s3gw.call import Call, Response
from s3gw.form_body import read_form
from s3gw.protocol.post_form import (
    choose_redirect,
    choose_status,
    expand_filename,
    format_post_response,
    parse_form_claim,
    parse_form_key,
    plan_form_headers,
    verify_form_claim,
)
from s3gw.protocol.post_policy import PostPolicy, evaluate_post_policy, parse_post_policy
from s3gw.protocol.principals import ANONYMOUS
from s3gw.put_request import format_put, plan_put
from s3gw.respond import XML_TYPE, Headers, quoted
from storage.model import User

_OF_THE_REQUEST = ("host", "origin", "referer", "user-agent", "x-amz-expected-bucket-owner")
"""headers that are the request's whatever the form says"""


async def post_object(call: Call) -> Response:
    """Store the form's file as the object that the form names."""
    upload = await read_form(call.intake.receive, call.raw.headers)
    fields = expand_filename(upload.form)
    object_key = parse_form_key(fields)
    user, policy = await _authenticate(call, fields)
    kept = {name: call.headers[name] for name in _OF_THE_REQUEST if name in call.headers}
    headers = plan_form_headers(fields)
    await call.authenticate_as(user, object_key, {**headers, **kept})
    body = upload.open_file(headers, policy)
    request = await plan_put(call, body.proves_itself)
    result = await call.services.objects.put_open_ended(call.bucket, object_key, body, request)
    told: Headers = [(b"etag", quoted(result.committed.etag)), *format_put(call, request, result)]
    return _answer(call, fields, result, told)


async def _authenticate(call: Call, fields: Mapping[str, str]) -> tuple[User, PostPolicy | None]:
    """Who signed the form, and what it may say. InvalidAccessKeyId, SignatureDoesNotMatch, InvalidPolicyDocument,
    AccessDenied."""
    services = call.services
    claim = parse_form_claim(fields, services.settings.region)
    if claim is None:
        return ANONYMOUS, None
    credential = await find_credential(services.directory, claim.access_key_id)
    verify_form_claim(claim, credential.secret_access_key)
    policy = parse_post_policy(claim.policy)
    evaluate_post_policy(policy, fields, call.bucket.name, services.clock.now_ms() / 1000)
    return credential.user, policy


def _answer(call: Call, fields: Mapping[str, str], result: PutResult, headers: Headers) -> Response:
    committed, bucket = result.committed, call.bucket.name
    redirect = choose_redirect(fields, bucket, call.object_key, committed.etag)
    if redirect is not None:
        return Response(303, [*headers, (b"location", redirect.encode("ascii"))])
    status, location = choose_status(fields), call.object_url
    headers.append((b"location", location.encode("latin-1")))
    if status != 201:
        return Response(status, headers)
    document = format_post_response(location, bucket, call.object_key, committed.etag)
    return Response(201, [XML_TYPE, *headers], document)
