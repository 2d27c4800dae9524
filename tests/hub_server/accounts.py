"""Users, their tokens, and who may do what."""

from .errors import bad_token, forbidden, gated, repo_not_found
from .repo import Repo


ALICE = "hf_alice_write"
ALICE_READ_ONLY = "hf_alice_read"
BOB = "hf_bob_write"
USERS = {ALICE: ("alice", "write"), ALICE_READ_ONLY: ("alice", "read"), BOB: ("bob", "write")}


def user_and_role(authorization: str | None) -> tuple[str | None, str | None]:
    """Name and role of the token in the header `Authorization`; nobody without one."""
    if not authorization:
        return None, None
    token = authorization.removeprefix("Bearer ").strip()
    if token not in USERS:
        raise bad_token()
    return USERS[token]


def whoami(user: str | None, role: str | None) -> dict:
    """What `/api/whoami-v2` answers."""
    if user is None:
        raise bad_token()
    token = {"displayName": role, "role": role, "createdAt": "2026-01-01T00:00:00.000Z"}
    return {
        "type": "user",
        "id": user,
        "name": user,
        "fullname": user.title(),
        "email": f"{user}@example.org",
        "emailVerified": True,
        "isPro": False,
        "orgs": [],
        "auth": {"type": "access_token", "accessToken": token},
    }


def check_visible(repo: Repo, user: str | None) -> None:
    """Everybody sees a public repository exists, gated or not; only its owner sees a private one."""
    if repo.private and user != repo.owner:
        raise repo_not_found(user)


def check_readable(repo: Repo, user: str | None) -> None:
    """Files of a gated repository need a grant."""
    check_visible(repo, user)
    if repo.gated and user != repo.owner and user not in repo.granted:
        raise gated(user, repo.id)


def check_writable(owner: str, user: str | None, role: str | None) -> None:
    if user is None:
        raise bad_token()
    if role != "write":
        raise forbidden("Forbidden: this token is read-only, use one with the role write")
    if user != owner:
        raise forbidden(f"Forbidden: {user} has no right to write in the namespace of {owner}")
