"""Which function answers which request."""

import re
from typing import TYPE_CHECKING
from urllib.parse import unquote

from . import commits, discussions, files, info, large_files, references, repositories, xet
from .errors import HubError


if TYPE_CHECKING:
    from .http_types import Request, Response
    from .server import HubServer

# An id has two parts; the clients also ask for ids of one part, which do not exist here.
API = r"/api/(?P<kind>models|datasets|spaces)/(?P<id>[^/]+(?:/[^/]+)?)"
PAGE = r"/(?:(?P<kind>datasets|spaces)/)?(?P<id>[^/]+(?:/[^/]+)?)"
ROUTES = [
    ("GET", r"/api/whoami-v2", repositories.whoami),
    ("POST", r"/api/repos/create", repositories.create),
    ("DELETE", r"/api/repos/delete", repositories.delete),
    ("POST", r"/api/validate-yaml", info.validate_card),
    ("GET", r"/api/(?P<kind>models|datasets|spaces)", info.search),
    ("PUT", API + r"/settings", repositories.change_settings),
    ("GET", API + r"/auth-check(?P<write>/write)?", repositories.check_access),
    ("POST", API + r"/user-access-request/(?P<action>grant|handle)", repositories.grant),
    ("POST", API + r"/preupload/(?P<revision>[^/]+)", commits.preupload),
    ("POST", API + r"/commit/(?P<revision>[^/]+)", commits.commit),
    ("GET", API + r"/commits/(?P<revision>[^/]+)", references.history),
    ("GET", API + r"/refs", references.all_references),
    ("POST", API + r"/branch/(?P<name>[^/]+)", references.create_branch),
    ("DELETE", API + r"/branch/(?P<name>[^/]+)", references.delete_branch),
    ("POST", API + r"/tag/(?P<revision>[^/]+)", references.create_tag),
    ("DELETE", API + r"/tag/(?P<name>[^/]+)", references.delete_tag),
    ("GET", API + r"/tree/(?P<revision>[^/]+)(?:/(?P<path>.*))?", files.tree),
    ("POST", API + r"/paths-info/(?P<revision>[^/]+)", files.paths_info),
    ("GET", API + r"/revision/(?P<revision>[^/]+)", info.repository),
    ("POST", API + r"/discussions", discussions.create),
    ("GET", API + r"/discussions", discussions.listing),
    ("GET", API + r"/discussions/(?P<number>\d+)", discussions.details),
    ("POST", API + r"/discussions/(?P<number>\d+)/merge", discussions.merge),
    ("GET", API, info.repository),
    ("POST", PAGE + r"\.git/info/lfs/objects/batch", large_files.batch),
    ("POST", PAGE + r"\.git/info/lfs/verify", large_files.verify),
    ("PUT", r"/lfs-upload/(?P<ticket>\w+)", large_files.upload),
    ("PUT", r"/lfs-upload/(?P<ticket>\w+)/(?P<part>\d+)", large_files.upload_part),
    ("POST", r"/lfs-complete/(?P<ticket>\w+)", large_files.complete),
    ("GET", API + r"/xet-write-token/(?P<revision>[^/]+)", xet.write_token),
    ("POST", r"/xet/v1/xorbs/default/(?P<hash>[0-9a-f]{64})", xet.upload_xorb),
    ("POST", r"/xet/v1/shards", xet.upload_shard),
    ("GET", r"/xet/v1/reconstructions/(?P<hash>[0-9a-f]{64})", xet.reconstruction),
    ("GET", r"/xet/(?P<hash>[0-9a-f]{64})", xet.download_xorb),
    ("GET", PAGE + r"/resolve/(?P<revision>[^/]+)/(?P<path>.+)", files.resolve),
]


def route(hub: "HubServer", request: "Request") -> "Response":
    """The answer to a request, which a HEAD shares with a GET."""
    method = "GET" if request.method == "HEAD" else request.method
    for allowed, pattern, function in ROUTES:
        match = re.fullmatch(pattern, request.path) if allowed == method else None
        if match:
            request.args = {name: value and unquote(value) for name, value in match.groupdict().items()}
            return function(hub, request)
    raise HubError(404, f"this Hub does not serve {request.method} {request.path}")
