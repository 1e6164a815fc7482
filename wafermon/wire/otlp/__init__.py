"""OTLP/HTTP as both directions need it: the requests' shapes, their JSON and their protobuf, and how ids and levels translate. Pure."""
