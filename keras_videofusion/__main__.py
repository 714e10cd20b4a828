"""`python -m keras_videofusion`: the same as the command `videofusion`."""

import sys

from keras_videofusion import cli

if __name__ == "__main__":
    sys.exit(cli.run(cli.parse()))
