"""Topics of Kafka in, as lines into the journal, each once. See docs/backends/kafka.md#reading.

A partition of a topic is a stream as a client's: the cluster is its principal, the topic's id and the partition's number are its name, and
the offset after a record is its mark, which is in the journal's group of that record's lines. A topic that is made anew has another id, and
so is another stream.
"""
