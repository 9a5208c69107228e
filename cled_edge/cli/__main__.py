"""`python -m cled_edge.cli` is `cled-edge`."""

from cled_edge.cli.app import main

if __name__ == "__main__":
    main()
