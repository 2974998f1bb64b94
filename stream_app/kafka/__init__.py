"""Faust and aiokafka: the only package that uses their internals."""
