"""``python -m secagg``: the command line without the installed script."""

from secagg.cli import main

if __name__ == "__main__":
    main()
