"""The entry point of the command line."""


def main() -> int:
    """Run a command. Ctrl-C ends it without a traceback, also while modules are imported."""
    try:
        from siamese import cli

        return cli.main()
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
