"""Print the sizes of published networks beside what they are here, as a Markdown table.

python -m trainables.architectures
"""

from trainables.architectures.sizes import PUBLISHED


def main() -> None:
    """One line per configuration."""
    print("| architecture | pixels | width | parameters | published | GFLOP | published |")
    print("|---|---|---|---|---|---|---|")
    for entry in PUBLISHED:
        parameters, gflop = entry.ours()
        known = "" if entry.gflop is None else f"{entry.gflop:g}"
        about = "" if entry.rounding == 1 else "about "
        print(
            f"| {entry.name} | {entry.resolution} | {entry.width} | {parameters:,}"
            f" | {about}{entry.parameters:,} | {gflop:.3g} | {known} |"
        )


if __name__ == "__main__":
    main()
