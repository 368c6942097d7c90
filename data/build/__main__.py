"""``python -m data.build NAME``: make one part of ``data/`` again from its seed."""

import sys

USAGE = (
    "usage: python -m data.build "
    "soc | benchmark | agent | handbook | samples | pii | redactor | redactor-table | "
    "probes | replay | adapter | wren | card | hashes"
)


def main(arguments: list[str]) -> None:
    """Run the build that the only argument names."""
    match arguments:
        case ["soc"]:
            from data.build import soc

            soc.main()
        case ["agent"]:
            from data.build import agent

            agent.main()
        case ["handbook"]:
            from data.build import handbook

            handbook.main()
        case ["benchmark"]:
            from data.build import benchmark

            benchmark.main()
        case ["samples"]:
            from data.build import samples

            samples.main()
        case ["pii"]:
            from data.build import pii

            pii.main()
        case ["redactor"]:
            from data.build import redactor

            redactor.main()
        case ["redactor-table"]:
            from data.build import redactor

            redactor.write_table()
        case ["probes"]:
            from data.build import wren

            wren.write_probes()
        case ["replay"]:
            from data.build import replay

            replay.main()
        case ["adapter"]:
            from data.build import adapter

            adapter.main()
        case ["wren"]:
            from data.build import wren

            wren.pretrain()
        case ["card"]:
            from data.build import card

            card.write_card()
        case ["hashes"]:
            from data.build import hashes

            hashes.write_table()
        case _:
            sys.exit(USAGE)


if __name__ == "__main__":
    main(sys.argv[1:])
