"""`python -m s3gw.cli` is the same as `frostbyte`."""

from s3gw.cli import main

if __name__ == "__main__":
    main()
