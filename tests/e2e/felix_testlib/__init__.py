"""What the end-to-end tests share: a broker process, a raw peer, frames, tokens, raw packets."""
