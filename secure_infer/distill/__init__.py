"""Teacher -> student training of the packaged heads on public data. Only the functions that train import torch."""
