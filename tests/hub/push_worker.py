"""What every process of a test of publishing runs: a short training, and a push of it."""

import json
import sys
from pathlib import Path

from published_runs import finish, trainer


def main(folder: Path, repo_id: str) -> None:
    made = finish(trainer(folder / "run", hub_model_id=repo_id))
    published = made.push_to_hub()
    rank = made.args.process_index
    report = {"world_size": made.args.world_size, "commit": published.commit if published else None}
    (folder / f"report_{rank}.json").write_text(json.dumps(report))
    made.accelerator.end_training()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
