"""What `xl3m feed` is made of: files of any kind in, events of the tokens topic out."""
