"""Judge finished episodes. No tensors."""
