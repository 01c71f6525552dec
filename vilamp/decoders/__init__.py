"""Video decoders; the file's name is the value on the command line (``decoder=pyav``)."""
