"""`python -m stream_app` is `xl3m`."""

from stream_app.cli.main import main

main()
