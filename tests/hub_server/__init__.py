"""A small Hub on loopback: the protocol of the Hugging Face Hub as far as its Python clients need it.

It serves models, datasets and Spaces out of one folder, with users and tokens, private and gated repositories,
branches, tags, pull requests and large files. It is made for tests and for trying a push by hand, not for an open
network: whoever reaches the port can read the tokens below in this file.

By hand, with a folder that survives a restart::

    make hub                                       # or: PYTHONPATH=tests python -m hub_server --help

It prints its address, the tokens, and the environment variables to set in another shell *before* Python starts
there: the Hugging Face libraries read them when they are imported. Large files come by Xet, or by git LFS from
clients with `HF_HUB_DISABLE_XET=1`; either way they are downloaded as plain files.

In tests::

    with HubServer(folder) as server:              # a daemon thread on a free port
        HfApi(server.endpoint, token=ALICE).create_repo("alice/net")
        server.faults.cut("PUT", "/lfs-upload/", after=1000)   # the next upload loses its connection after 1000 bytes
        server.log                                 # every request so far
"""

from .accounts import ALICE, ALICE_READ_ONLY, BOB, USERS
from .faults import Faults
from .http_types import LoggedRequest
from .server import HubServer


__all__ = ["ALICE", "ALICE_READ_ONLY", "BOB", "USERS", "Faults", "HubServer", "LoggedRequest"]
