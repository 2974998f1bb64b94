"""`python -m stream_app` is `xl3m`."""

from stream_app.cli import main

main()
