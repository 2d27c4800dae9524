"""Creating and deleting repositories, and who may see them."""

from . import accounts
from .access import readable, repo_type, writable
from .errors import HubError, bad_token
from .http_types import Request, Response
from .repo import Repo, check_name, regular_entry


GITATTRIBUTES = "".join(
    f"*.{ending} filter=lfs diff=lfs merge=lfs -text\n"
    for ending in ("arrow", "bin", "ckpt", "h5", "npy", "npz", "onnx", "parquet", "pt", "pth", "safetensors", "zip")
).encode()


def whoami(hub, request: Request) -> Response:
    return Response(accounts.whoami(request.user, request.role))


def create(hub, request: Request) -> Response:
    fields = request.json()
    if request.user is None:
        raise bad_token()
    owner, type = fields.get("organization") or request.user, fields.get("type") or "model"
    check_name(fields["name"])
    accounts.check_writable(owner, request.user, request.role)
    private = fields.get("visibility") == "private" or bool(fields.get("private"))
    repo = Repo(f"{owner}/{fields['name']}", type, private, fields.get("sdk"))
    with hub.store.lock:
        if hub.store.exists(type, repo.id):
            message = "You already created this repo"
            raise HubError(409, f"{message}: {repo.id}", body={"url": repo.url(hub.endpoint)})
        hub.store.add_object(GITATTRIBUTES)
        files = {".gitattributes": regular_entry(GITATTRIBUTES)}
        repo.add_commit("refs/heads/main", "initial commit", "", owner, files)
        hub.store.save(repo)
    return Response({"url": repo.url(hub.endpoint), "name": repo.id, "id": repo.id})


def delete(hub, request: Request) -> Response:
    fields = request.json()
    owner, type = fields.get("organization") or request.user, fields.get("type") or "model"
    request.args = {"id": f"{owner}/{fields['name']}", "kind": f"{type}s"}
    hub.store.delete(writable(hub, request))
    return Response({})


def change_settings(hub, request: Request) -> Response:
    fields = request.json()
    with hub.store.edit(writable(hub, request)) as repo:
        if "visibility" in fields or "private" in fields:
            repo.private = fields.get("visibility") == "private" or bool(fields.get("private"))
        repo.gated = fields.get("gated", repo.gated)
    return Response({"private": repo.private, "gated": repo.gated})


def check_access(hub, request: Request) -> Response:
    repo = writable(hub, request) if request.args["write"] else readable(hub, request)
    return Response({"id": repo.id, "type": repo_type(request)})


def grant(hub, request: Request) -> Response:
    """The owner lets a user in, or takes that back."""
    fields = request.json()
    if fields["user"] not in {name for name, _ in accounts.USERS.values()}:
        raise HubError(404, f"no user {fields['user']}")
    with hub.store.edit(writable(hub, request)) as repo:
        repo.granted = [user for user in repo.granted if user != fields["user"]]
        if request.args["action"] == "grant" or fields["status"] == "accepted":
            repo.granted.append(fields["user"])
    return Response({})
