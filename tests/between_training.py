"""A node's `dvfd` for tests of training between nodes: a model that is small, and little time.

`python between_training.py check pytorch loss_convergence --nodes 2 ...`.
"""

from __future__ import annotations

import sys


def main() -> None:
    from dvfd import cli, drills
    from dvfd.cli import checks
    from dvfd.drills import convergence
    from dvfd.drills.curve import Configuration

    build = drills.build

    def small(check: str) -> tuple[drills.Part, ...]:
        model = Configuration(width=32, layers=1, context=32)
        if check == "loss_convergence":
            return (convergence.Convergence(model=model),)
        return build(check)[:2]  # of pytorch: without the ranks that say how many threads they have

    drills.build = small
    convergence.MEASURING = (0.5, 0.5)
    checks.say_on_a_terminal = lambda line: print(line, file=sys.stderr, flush=True)
    cli.main()


if __name__ == "__main__":
    main()
