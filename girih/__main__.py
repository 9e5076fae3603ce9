"""`python -m girih` is the `girih` command (also what `accelerate launch -m girih` starts)."""

from girih.apps.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
