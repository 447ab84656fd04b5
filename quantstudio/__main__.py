"""`python -m quantstudio` is the command line."""

from quantstudio.cli.main import main

if __name__ == "__main__":
    main()
