"""How a network is loaded, batched, cached and run: token ids in, logits and text out."""
