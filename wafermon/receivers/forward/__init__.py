"""What other sidecars forward to here: frames that stand for stretches of their journals. See docs/protocol.md."""
