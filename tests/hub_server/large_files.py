"""Uploads of large files as git LFS has them: whole, or in parts."""

import re
import secrets

from .access import visible
from .accounts import check_writable
from .errors import HubError, bad_token
from .http_types import Request, Response


def batch(hub, request: Request) -> Response:
    """Where to send what is not there yet."""
    visible(hub, request)
    if request.user is None:
        raise bad_token()
    check_writable(request.user, request.user, request.role)
    objects = [_instructions(hub, request, wanted) for wanted in request.json()["objects"]]
    return Response({"transfer": "multipart" if hub.part_size else "basic", "objects": objects})


def _instructions(hub, request: Request, wanted: dict) -> dict:
    oid, size = wanted["oid"], wanted["size"]
    if not re.fullmatch("[0-9a-f]{64}", oid):
        raise HubError(422, f"{oid} is not a SHA-256")
    if hub.store.object(oid).is_file():
        return {"oid": oid, "size": size}
    # The upload itself carries no token.
    ticket = secrets.token_hex(16)
    hub.uploads[ticket] = (oid, size)
    action = {"href": f"{hub.endpoint}/lfs-upload/{ticket}"}
    if hub.part_size:
        parts = range(1, -(-size // hub.part_size) + 1)
        action = {
            "href": f"{hub.endpoint}/lfs-complete/{ticket}",
            "header": {
                "chunk_size": str(hub.part_size),
                **{f"{part:05d}": f"{hub.endpoint}/lfs-upload/{ticket}/{part}" for part in parts},
            },
        }
    verify = {"href": f"{hub.endpoint}{request.path.removesuffix('objects/batch')}verify"}
    return {"oid": oid, "size": size, "actions": {"upload": action, "verify": verify}}


def _ticket(hub, request: Request) -> tuple[str, int]:
    if request.args["ticket"] not in hub.uploads:
        raise HubError(403, "this upload was not announced")
    return hub.uploads[request.args["ticket"]]


def upload(hub, request: Request) -> Response:
    oid, _ = _ticket(hub, request)
    with hub.store.writer(oid) as write:
        for piece in request.pieces:
            write(piece)
    return Response({}, headers={"ETag": f'"{oid}"'})


def upload_part(hub, request: Request) -> Response:
    _ticket(hub, request)
    content = request.body()
    _part(hub, request, request.args["part"]).write_bytes(content)
    return Response({}, headers={"ETag": f'"part-{request.args["part"]}-{len(content)}"'})


def _part(hub, request: Request, number: str):
    return hub.store.folder / "temporary" / f"{request.args['ticket']}-{number}"


def complete(hub, request: Request) -> Response:
    oid, _ = _ticket(hub, request)
    parts = [_part(hub, request, str(part["partNumber"])) for part in request.json()["parts"]]
    with hub.store.writer(oid) as write:
        for part in parts:
            write(part.read_bytes())
    for part in parts:
        part.unlink()
    return Response({})


def verify(hub, request: Request) -> Response:
    wanted = request.json()
    stored = hub.store.object(wanted["oid"])
    if not stored.is_file() or stored.stat().st_size != wanted["size"]:
        raise HubError(404, f"{wanted['oid']} was not uploaded")
    return Response({})
