"""`python -m refdcn` is the command `refdcn`."""

from refdcn.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
