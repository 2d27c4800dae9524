"""The Hub by hand: `make hub`, or `PYTHONPATH=tests python -m hub_server`."""

import argparse

from . import USERS, HubServer


def main() -> None:
    parser = argparse.ArgumentParser(prog="hub_server", description="A small Hub on loopback, until Ctrl+C.")
    parser.add_argument("--folder", default="outputs/hub", help="where everything is stored (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8018, help="0 takes a free one (default: %(default)s)")
    parser.add_argument("--part-size", type=int, help="take large files in parts of this many bytes")
    arguments = parser.parse_args()
    server = HubServer(arguments.folder, arguments.port, arguments.part_size)
    print(f"A Hub at {server.endpoint}, stored in {arguments.folder}. Its tokens:")
    for token, (user, role) in USERS.items():
        print(f"    {token:16} {user}, {role}")
    print("In another shell, before Python starts:")
    print(f"    export HF_ENDPOINT={server.endpoint} HF_TOKEN={next(iter(USERS))}", flush=True)
    try:
        server.serve()
    except KeyboardInterrupt:
        print("\nstopped; the folder stays")


if __name__ == "__main__":
    main()
